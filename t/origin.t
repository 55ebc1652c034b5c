# The origin check of browser-facing endpoints.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Config = <<'EOF';
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }

    location = /callback { nango_oauth_callback; }
EOF

# A request with the given headers, Host first.
sub get {
    my ($host, @headers) = @_;

    return CORE::join "\r\n", 'GET /connections HTTP/1.1', "Host: $host",
        'X-User: 42', 'Connection: close', @headers, '', '';
}

add_block_preprocessor(\&NangoTest::prepare);
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: without Origin
--- config eval: $::Config
--- raw_request eval
::get('app.example.com')
--- error_code: 200



=== TEST 2: the own one
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: http://app.example.com')
--- error_code: 200



=== TEST 3: the own one behind something that ends TLS
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: https://APP.example.com')
--- error_code: 200



=== TEST 4: with a port
--- config eval: $::Config
--- raw_request eval
::get('app.example.com:8443', 'Origin: https://app.example.com:8443')
--- error_code: 200



=== TEST 5: the scheme's own port may be left out
--- config eval: $::Config
--- raw_request eval
::get('app.example.com:443', 'Origin: https://app.example.com')
--- error_code: 200



=== TEST 6: a foreign host
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: https://evil.example.com')
--- error_code: 403
--- response_headers
X-Nango-Error: origin_not_allowed
Cache-Control: no-store



=== TEST 7: a host that only begins so
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: https://app.example.com.evil.example')
--- error_code: 403



=== TEST 8: another port
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: https://app.example.com:8443')
--- error_code: 403



=== TEST 9: null
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: null')
--- error_code: 403



=== TEST 10: an extension
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Origin: moz-extension://app.example.com')
--- error_code: 403



=== TEST 11: no Origin, but the browser says cross-site
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Sec-Fetch-Site: cross-site')
--- error_code: 403



=== TEST 12: or same-origin
--- config eval: $::Config
--- raw_request eval
::get('app.example.com', 'Sec-Fetch-Site: same-origin')
--- error_code: 200



=== TEST 13: IPv6
--- config eval: $::Config
--- raw_request eval
::get('[::1]:8080', 'Origin: http://[::1]:8080')
--- error_code: 200



=== TEST 14: before authentication is asked for anything
--- config
    location = /auth { return 500; }
    location = /connections {
        auth_request /auth;
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
--- raw_request eval
::get('app.example.com', 'Origin: https://evil.example.com')
--- error_code: 403



=== TEST 15: and error_page makes nothing else of it
--- config
    error_page 403 =200 /nothing;
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
--- raw_request eval
::get('app.example.com', 'Origin: https://evil.example.com')
--- error_code: 403



=== TEST 16: the own one, of a request that has a host and no header for it
--- config eval: $::Config
--- raw_request eval
CORE::join "\r\n", 'GET http://app.example.com/connections HTTP/1.0',
    'X-User: 42', 'Origin: https://app.example.com', '', ''
--- error_code: 200



=== TEST 17: a foreign one there
--- config eval: $::Config
--- raw_request eval
CORE::join "\r\n", 'GET http://app.example.com/connections HTTP/1.0',
    'X-User: 42', 'Origin: https://evil.example.com', '', ''
--- error_code: 403



=== TEST 18: and what the header says counts where there are both
--- config eval: $::Config
--- raw_request eval
CORE::join "\r\n", 'GET http://evil.example.com/connections HTTP/1.1',
    'Host: app.example.com', 'X-User: 42', 'Connection: close',
    'Origin: https://evil.example.com', '', ''
--- error_code: 403



=== TEST 19: neither: nobody's own
--- config eval: $::Config
--- raw_request eval
CORE::join "\r\n", 'GET /connections HTTP/1.0', 'X-User: 42',
    'Origin: https://app.example.com', '', ''
--- error_code: 403
