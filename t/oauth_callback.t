# nango_oauth_callback

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: the query string byte for byte
--- config
    location = /oauth-callback { nango_oauth_callback; }
--- request
GET /oauth-callback?state=a%2Fb&code=%e4+x&&empty=
--- error_code: 308
--- response_headers
Location: https://nango.example.com/oauth/callback?state=a%2Fb&code=%e4+x&&empty=
Cache-Control: no-store



=== TEST 2: without one
--- config
    location = /oauth-callback { nango_oauth_callback; }
--- request
GET /oauth-callback
--- error_code: 308
--- response_headers
Location: https://nango.example.com/oauth/callback



=== TEST 3: a provider that posts
--- config
    location = /oauth-callback { nango_oauth_callback; }
--- request
POST /oauth-callback
state=x&code=y
--- error_code: 308
--- response_headers
Location: https://nango.example.com/oauth/callback



=== TEST 4: the cloud by default
--- http_config
    nango_environment prod { api_key data:k; }
--- config
    location = /oauth-callback { nango_oauth_callback; }
--- request
GET /oauth-callback?state=x
--- error_code: 308
--- response_headers
Location: https://api.nango.dev/oauth/callback?state=x



=== TEST 5: it needs no owner, and a foreign page may lead here
--- config
    location = /oauth-callback { nango_oauth_callback; }
--- request
GET /oauth-callback?state=x
--- more_headers
Sec-Fetch-Site: cross-site
--- error_code: 308
