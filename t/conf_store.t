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



=== TEST 8: a size that no address space has
--- http_config
    nango_store nango_cache size=16385g;
--- config
--- must_die
--- error_log
the size "16385g" is too large; it must be 16384g at most



=== TEST 9: a time that is, in ms, another one
--- http_config
    nango_store nango_cache retain=18446744073709552s;
--- config
--- must_die
--- error_log
the time "18446744073709552s" is too long; it must be 100y at most



=== TEST 10: the greatest of both
--- http_config
    nango_store nango_cache size=16384g retain=100y;
--- config
    location = /nothing { return 404; }
--- request
GET /nothing
--- error_code: 404



=== TEST 11: two sizes
--- http_config
    nango_store nango_cache size=1g size=2g;
--- config
--- must_die
--- error_log
"size=" is duplicate



=== TEST 12: two times
--- http_config
    nango_store nango_cache retain=7d retain=1d;
--- config
--- must_die
--- error_log
"retain=" is duplicate
