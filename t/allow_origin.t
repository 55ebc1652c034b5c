# nango_allow_origin: which pages may ask, what preflights are answered, and
# that a page may read every answer of the location.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2');

our $App = 'https://app.example.com';

our $List = <<'EOF';
    nango_allow_origin https://app.example.com https://*.example.org
                       http://localhost:3000 http://[::1]:3000
                       https://Upper.Example.com:8443;
EOF

our $Config = $List . <<'EOF';
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
EOF

# What a page of a listed origin is told, and all that others are.
our $Told = '(?s)\nVary: Origin\s+.*'
            . '\nAccess-Control-Allow-Origin: https://app\.example\.com\s+'
            . 'Access-Control-Allow-Credentials: true\s+'
            . 'Access-Control-Expose-Headers: X-Nango-Error, Retry-After\s';
our $Vary = '\nVary: Origin\s';
our $Told_or_not = 'Access-Control';

# For a list of origins: requests, headers and so on, one for each.
sub all {
    my ($value, @origins) = @_;

    return [map { $value } @origins];
}

sub origins {
    return [map { "X-User: 42\nOrigin: $_" } @_];
}

our @Good = (
    'https://app.example.com', 'https://app.example.com:443',
    'https://APP.example.COM', 'HTTPS://app.example.com',
    'https://a.example.org', 'https://a.b.example.org',
    'https://a-b_c.example.org:443', 'https://xn--mnchen-3ya.example.org',
    'http://localhost:3000', 'http://[::1]:3000',
    'https://upper.example.com:8443',
);

our @Bad = (
    # others, and those that only look alike
    'https://evil.example', 'https://app.example.com.evil.example',
    'https://evilapp.example.com', 'https://pp.example.com',
    'https://example.com', 'https://a.app.example.com',
    # the star is for what is below the domain
    'https://example.org', 'https://evilexample.org', 'https://.example.org',
    'https://a.example.org.evil.example', 'https://a.example.orgx',
    # schemes and ports
    'http://app.example.com', 'http://app.example.com:443',
    'https://app.example.com:80', 'https://app.example.com:8443',
    'https://localhost:3000', 'http://localhost:3001', 'http://[::1]',
    'http://[::2]:3000', 'https://upper.example.com',
    'http://a.example.org', 'https://a.example.org:8443',
    'ftp://app.example.com', 'https:/app.example.com', 'app.example.com',
    'chrome-extension://app.example.com', 'file://', 'null', 'NULL', '*',
    # what no browser sends as one
    'https://', 'http://', 'https://:443', 'https://app.example.com:',
    'https://app.example.com:0443x', 'https://app.example.com:-443',
    'https://app.example.com:65979', 'https://app.example.com:4294967739',
    'https://app.example.com:18446744073709552059',
    'https://app.example.com/', 'https://app.example.com/x',
    'https://evil.example/.example.org', 'https://evil.example?.example.org',
    'https://evil.example#.example.org', 'https://a@b.example.org',
    'https://evil.example\\.example.org', 'https://evil.example%2f.example.org',
    'https://evil.example .example.org', 'https://app.example.com evil',
    'https://evil.example https://app.example.com',
    'https://app.example.com, https://evil.example',
    'https://evil.example,https://a.example.org',
    "https://a\x{c3}\x{bc}.example.org", 'https://app.example.com.',
    "https://app.example.com\t.example.org",
    'https://' . 'a' x 3000 . '.evil.example',
);

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: listed origins may ask, and are told so
--- config eval: $::Config
--- request eval
::all('GET /connections', @::Good)
--- more_headers eval
::origins(@::Good)
--- error_code eval
::all(200, @::Good)
--- raw_response_headers_like eval
[map { "(?s)\nVary: Origin\\s+.*\nAccess-Control-Allow-Origin: \Q$_\E\\s+"
       . "Access-Control-Allow-Credentials: true\\s+"
       . "Access-Control-Expose-Headers: X-Nango-Error, Retry-After\\s" } @::Good]



=== TEST 2: others may not, and are told nothing but that it depends
--- config eval: $::Config
--- request eval
::all('GET /connections', @::Bad)
--- more_headers eval
::origins(@::Bad)
--- error_code eval
::all(403, @::Bad)
--- response_body_like eval
::all('"origin_not_allowed"', @::Bad)
--- raw_response_headers_like eval
::all($::Vary, @::Bad)
--- raw_response_headers_unlike eval
::all($::Told_or_not, @::Bad)



=== TEST 3: the page's own origin needs no list and is told nothing
--- config eval: $::Config
--- request
GET /connections
--- more_headers
X-User: 42
Origin: http://localhost
--- raw_response_headers_like eval: $::Vary
--- raw_response_headers_unlike: Access-Control



=== TEST 4: nor is who sends no origin
--- config eval: $::Config
--- request eval
['GET /connections', 'GET /connections', 'GET /connections']
--- more_headers eval
['X-User: 42', "X-User: 42\nSec-Fetch-Site: same-origin",
 "X-User: 42\nSec-Fetch-Site: cross-site"]
--- error_code eval
[200, 200, 403]
--- raw_response_headers_like eval
[($::Vary) x 3]
--- raw_response_headers_unlike eval
[($::Told_or_not) x 3]



=== TEST 5: without a list nothing depends on the origin
--- config
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
--- request eval
['GET /connections', 'GET /connections', 'OPTIONS /connections']
--- more_headers eval
['X-User: 42', "X-User: 42\nOrigin: https://app.example.com",
 "X-User: 42\nOrigin: https://app.example.com\n"
 . 'Access-Control-Request-Method: DELETE']
--- error_code eval
[200, 403, 403]
--- raw_response_headers_unlike eval
[('Access-Control|Vary') x 3]



=== TEST 6: a preflight, before anybody is asked who it is
--- config eval
$::List . <<'EOF';
    location = /auth { return 500; }

    location = /connections {
        auth_basic closed;
        auth_basic_user_file users;
        auth_request /auth;
        nango_owner end_user_id $remote_user;
        nango_connections;
    }

    location = /session {
        deny all;
        nango_owner end_user_id $remote_user;
        nango_session;
    }
EOF
--- user_files
>>> users
--- request eval
['OPTIONS /connections', 'OPTIONS /session']
--- more_headers eval
["Origin: https://app.example.com\n"
 . "Access-Control-Request-Method: DELETE\n"
 . "Access-Control-Request-Headers: content-type,x-csrf",
 "Origin: https://app.example.com\nAccess-Control-Request-Method: POST"]
--- error_code eval
[204, 204]
--- response_body eval
['', '']
--- raw_response_headers_like eval
['(?s)\nAccess-Control-Allow-Methods: GET, HEAD, POST, DELETE\s+'
 . 'Access-Control-Max-Age: 600\s+'
 . 'Access-Control-Allow-Headers: content-type,x-csrf\s+.*'
 . '\nVary: Origin\s+'
 . 'Access-Control-Allow-Origin: https://app\.example\.com\s+'
 . 'Access-Control-Allow-Credentials: true\s+',
 '\nAccess-Control-Allow-Methods: POST\s+']
--- raw_response_headers_unlike eval
['Content-(?:Length|Type)', 'Access-Control-Allow-Headers']



=== TEST 7: a preflight of others
--- config eval: $::Config
--- request eval
['OPTIONS /connections', 'OPTIONS /connections', 'OPTIONS /connections']
--- more_headers eval
["Origin: https://evil.example\nAccess-Control-Request-Method: DELETE",
 "Origin: null\nAccess-Control-Request-Method: DELETE",
 "Sec-Fetch-Site: cross-site\nAccess-Control-Request-Method: DELETE"]
--- error_code eval
[403, 403, 403]
--- raw_response_headers_unlike eval
[('Access-Control') x 3]



=== TEST 8: OPTIONS that is no preflight is a method like any other
--- config eval: $::Config
--- request eval
['OPTIONS /connections', 'OPTIONS /connections']
--- more_headers eval
["X-User: 42\nOrigin: https://app.example.com",
 "X-User: 42\nAccess-Control-Request-Method: DELETE"]
--- error_code eval
[405, 405]
--- raw_response_headers_like eval
[$::Told, '\nAllow: GET, HEAD, POST, DELETE\s+']



=== TEST 9: names of headers that are none are not repeated
--- config eval: $::Config
--- request eval
['OPTIONS /connections', 'OPTIONS /connections']
--- more_headers eval
["Origin: https://app.example.com\nAccess-Control-Request-Method: GET\n"
 . "Access-Control-Request-Headers: a\x{c3}\x{bc}",
 "Origin: https://app.example.com\nAccess-Control-Request-Method: GET\n"
 . "Access-Control-Request-Headers: a\tb"]
--- error_code eval
[204, 204]
--- raw_response_headers_unlike eval
[('Access-Control-Allow-Headers') x 2]



=== TEST 10: two origins are nobody's, whichever comes first
--- config eval: $::Config
--- request eval
['GET /connections', 'GET /connections', 'OPTIONS /connections']
--- more_headers eval
["X-User: 42\nOrigin: https://app.example.com\nOrigin: https://evil.example",
 "X-User: 42\nOrigin: https://evil.example\nOrigin: https://app.example.com",
 "Origin: https://app.example.com\nOrigin: https://a.example.org\n"
 . 'Access-Control-Request-Method: GET']
--- error_code eval
[403, 403, 403]
--- raw_response_headers_unlike eval
[('Access-Control') x 3]



=== TEST 11: an empty one is no origin of a page
--- config eval: $::Config
--- raw_request eval
"GET /connections HTTP/1.1\r\nHost: localhost\r\nX-User: 42\r\nOrigin:\r\n"
. "Connection: close\r\n\r\n"
--- error_code: 403
--- raw_response_headers_unlike: Access-Control



=== TEST 12: nginx's own 401, of auth_basic
--- config eval
$::List . <<'EOF';
    location = /connections {
        auth_basic closed;
        auth_basic_user_file users;
        nango_owner end_user_id $remote_user;
        nango_connections;
    }
EOF
--- user_files
>>> users
--- request eval
['GET /connections', 'GET /connections']
--- more_headers eval
['Origin: https://app.example.com', 'Origin: https://evil.example']
--- error_code eval
[401, 403]
--- raw_response_headers_like eval
["(?s)WWW-Authenticate.*$::Told", $::Vary]
--- raw_response_headers_unlike eval
['Cache-Control', 'Access-Control']



=== TEST 13: that of auth_request, and its 403 and 500
--- config eval
$::List . <<'EOF';
    location = /401 { return 401; }
    location = /403 { return 403; }
    location = /500 { return 500; }

    location = /a {
        auth_request /401;
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location = /b {
        auth_request /403;
        nango_owner end_user_id $http_x_user;
        nango_session;
    }
    location = /c {
        auth_request /500;
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
EOF
--- request eval
['GET /a', 'POST /b', 'GET /c']
--- more_headers
X-User: 42
Origin: https://app.example.com
--- error_code eval
[401, 403, 500]
--- raw_response_headers_like eval
[($::Told) x 3]



=== TEST 14: of satisfy, deny, limit_except and an if
--- config eval
$::List . <<'EOF';
    location = /a {
        satisfy any;
        deny all;
        auth_basic closed;
        auth_basic_user_file users;
        nango_owner end_user_id $remote_user;
        nango_connections;
    }
    location = /b {
        deny all;
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location = /c {
        limit_except GET { deny all; }
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location = /d {
        if ($arg_gone) { return 410; }
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
EOF
--- user_files
>>> users
--- request eval
['GET /a', 'GET /b', 'POST /c', 'GET /c', 'GET /d?gone=1', 'GET /d']
--- more_headers
X-User: 42
Origin: https://app.example.com
--- error_code eval
[401, 403, 403, 200, 410, 200]
--- raw_response_headers_like eval
[($::Told) x 6]



=== TEST 15: what the endpoints answer
--- config eval
$::List . <<'EOF';
    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations github;
        client_max_body_size 1k;
        nango_session;
    }
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_permit delete;
        nango_reconnect;
    }
EOF
--- request eval
['GET /connections', 'GET /connections?id=0', 'GET /connections?limit=x',
 'PUT /connections', 'HEAD /connections', "POST /session\n{\"x\":1}",
 "POST /session\nx", "POST /session\n{\"integration\":\"slack\"}",
 "POST /session\n" . 'x' x 2000, "POST /reconnect\n{}", 'POST /session',
 'GET /connections']
--- more_headers eval
my $o = 'Origin: https://app.example.com';
my $json = "X-User: 42\nContent-Type: application/json\n$o";
["X-User: 42\n$o", "X-User: 42\n$o", "X-User: 42\n$o",
 "X-User: 42\n$o", "X-User: 42\n$o", $json,
 "X-User: 42\nContent-Type: text/plain\n$o", $json, $json, $json,
 "X-User: 42\n$o", $o]
--- error_code eval
[200, 404, 400, 405, 200, 400, 415, 403, 413, 403, 200, 401]
--- raw_response_headers_like eval
[($::Told) x 12]



=== TEST 16: and when Nango fails
--- init
NangoTest::sim('reset');
NangoTest::sim('faults', '{"faults":['
    . '{"method":"POST","path":"/connect/sessions","status":500,"times":1},'
    . '{"method":"POST","path":"/connect/sessions","hang":true,"times":1},'
    . '{"method":"POST","path":"/connect/sessions","reset":true,'
    . '"cut_after":0,"times":1},'
    . '{"method":"POST","path":"/connect/sessions","status":429,'
    . '"retry_after":7,"times":1}]}')
--- http_config eval
qq{
    nango_store nango_cache;

    nango_environment prod {
        api         \$TEST_NGINX_NANGO_API;
        api_public  https://nango.example.com;
        api_key     data:$NangoTest::API_KEY;
        reconcile   off;
        api_timeout 500ms;
    }
}
--- config eval
$::List . <<'EOF';
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session;
    }
EOF
--- request eval
[('POST /session') x 4]
--- more_headers
X-User: 42
Origin: https://app.example.com
--- error_code eval
[502, 504, 503, 429]
--- raw_response_headers_like eval
[$::Told, $::Told, $::Told, "(?s)\nRetry-After: 7\\s+.*$::Told"]



=== TEST 17: other endpoints and other locations say nothing
--- config eval
$::List . <<'EOF';
    location = /webhook { nango_webhook; }
    location = /callback { nango_oauth_callback; }
    location = /page { return 200 page; }
EOF
--- request eval
["POST /webhook\n{}", 'GET /callback', 'GET /page', 'OPTIONS /callback']
--- more_headers
Origin: https://app.example.com
Access-Control-Request-Method: GET
--- error_code eval
[401, 308, 200, 308]
--- raw_response_headers_unlike eval
[('Access-Control|Vary') x 4]



=== TEST 18: a level's own list replaces that above; lines of a level add up
--- config
    nango_allow_origin https://a.example.com;

    location = /inherited {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
    location = /own {
        nango_allow_origin https://b.example.com;
        nango_allow_origin https://c.example.com https://d.example.com;
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
--- request eval
['GET /inherited', 'GET /inherited', ('GET /own') x 4]
--- more_headers eval
[map { "X-User: 42\nOrigin: https://$_.example.com" } qw( a b a b c d )]
--- error_code eval
[200, 403, 403, 200, 200, 200]



=== TEST 19: the own origin behind something that ends TLS
--- config eval: $::Config
--- raw_request eval
"GET /connections HTTP/1.1\r\nHost: app.example.net\r\nX-User: 42\r\n"
. "Origin: https://app.example.net\r\nConnection: close\r\n\r\n"
--- error_code: 200
--- raw_response_headers_unlike: Access-Control



=== TEST 20: a name in Host makes nobody listed
--- config eval: $::Config
--- raw_request eval
"GET /connections HTTP/1.1\r\nHost: app.example.com\r\nX-User: 42\r\n"
. "Origin: https://evil.example\r\nConnection: close\r\n\r\n"
--- error_code: 403
