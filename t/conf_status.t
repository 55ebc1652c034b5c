# nango_status: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: another parameter
--- config
    location = /status { nango_status all; }
--- must_die
--- error_log
invalid parameter "all"; there is "manage"



=== TEST 2: two in a location
--- config
    location = /status { nango_status; nango_status manage; }
--- must_die
--- error_log
"nango_status" in a location that has "nango_status" already



=== TEST 3: beside other content
--- config
    location = /status { stub_status; nango_status; }
--- must_die
--- error_log
"nango_status" in a location whose content comes from another directive



=== TEST 4: several environments, of which none is named
--- http_config
    nango_environment one { webhook_signing_key data:k; }
    nango_environment two { webhook_signing_key data:k; }
--- config
    location = /status { nango_status; }
--- no_error_log
[warn]
--- request
GET /status
--- response_body_like chomp
"environments":\[\{"name":"one",.*\{"name":"two",
--- error_code: 200



=== TEST 5: neither a store nor an environment
--- http_config
    server_tokens off;
--- config
    location = /status { nango_status manage; }
--- request
GET /status
--- response_body_like chomp
"store":null,.*"environments":\[\],"subscribers":\[\]
--- error_code: 200



=== TEST 6: only in locations
--- config
    nango_status;
--- must_die
--- error_log
"nango_status" directive is not allowed here
