# nango_store: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: two stores
--- http_config
    nango_store nango_cache;
    nango_store other_cache;
--- config
--- must_die
--- error_log
"nango_store" directive is duplicate



=== TEST 2: a size that is none
--- http_config
    nango_store nango_cache size=many;
--- config
--- must_die
--- error_log
invalid size "many"; write it as "size=16g"



=== TEST 3: a size that is too small
--- http_config
    nango_store nango_cache size=1m;
--- config
--- must_die
--- error_log
the size "1m" is too small; it must be 16m at least



=== TEST 4: a time that is none
--- http_config
    nango_store nango_cache retain=week;
--- config
--- must_die
--- error_log
invalid time "week"; write it as "retain=7d"



=== TEST 5: an unknown parameter
--- http_config
    nango_store nango_cache keep=7d;
--- config
--- must_die
--- error_log
invalid parameter "keep=7d"; there are "size=" and "retain="



=== TEST 6: an endpoint without a store
--- http_config
    nango_environment prod { webhook_signing_key data:k; }
--- config
    location = /webhook { nango_webhook; }
--- must_die
--- error_log
"nango_webhook" needs a store: add "nango_store PATH;"



=== TEST 7: tmpfs is warned of
--- http_config
    nango_store /dev/shm/nginx-nango-test size=16m;
--- config
--- error_log
is on tmpfs: acknowledged webhooks are lost
--- request
GET /nothing
--- error_code: 404
