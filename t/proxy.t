# nango_require ... proxy: what reaches Nango's proxy is what is meant, whatever
# a client sends.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Config = <<'EOF';
    nango_owner end_user_id $http_x_user;
    nango_session_limit off;

    location = /webhook { nango_webhook; }
    location = /connections { nango_connections; }

    location /api/ {
        nango_require github proxy;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location /listed/ {
        nango_allow_origin https://app.example.com;
        nango_require github proxy;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our @Events = (event('creation', 'true', 'c-1', end_user_id => '42'),
               event('creation', 'true', 'c-2', end_user_id => '43'));

sub steps {
    return [(map { webhook($_) } @Events), 'GET /connections', @_];
}

sub headers {
    return [(map { signature($_) } @Events), 'X-User: 42',
            map { "X-User: $_" } @_];
}

sub codes {
    return [200, 200, 200, @_];
}

sub bodies {
    return ['"ack":true', '"ack":true', '"connections"', @_];
}

# A header's value has no such ends, and other bytes are other letters there.
our @Unsaid = (['c-2 ', end_user_id => '51'], [' c-2', end_user_id => '52'],
               ["c-2\xc3\xa9", end_user_id => '53'],
               ['c-2', end_user_id => '54', integration => 'github ']);

# What a client could do harm with.
our @Names = qw(
    Authorization Base-Url-Override Connection-Id Provider-Config-Key Retries
    Retry-On Decompress Forward-Headers-On-Redirect Nango-Activity-Log-Id
    Nango-Is-Sync Nango-Is-Dry-Run Nango-Proxy-Authorization Nango-Proxy-X
    Nango- Cookie
);

# All of them, in that case and so many times, between others.  Of some nginx
# itself takes no second one.
sub hostile {
    my ($times, $case) = @_;

    my @lines = ('X-First: 1', 'Connection: close');

    for my $n (1 .. $times) {
        push @lines, map { ($case ? $case->($_) : $_) . ": evil$n" }
            grep { $n == 1 || $_ ne 'Authorization' } @Names;
        push @lines, "X-Between: $n";
    }

    return CORE::join("\n", @lines);
}

# One of each of ours, those of others, and nothing evil.
our $Clean = '(?s)^(?!.*evil)(?!.*[cC]ookie)'
    . '(?=.*"raw_headers":\[[^\]]*"Authorization","Bearer '
    . $NangoTest::API_KEY . '","Connection-Id","c-1",'
    . '"Provider-Config-Key","github"\])'
    . '(?!.*"authorization".*"raw_headers".*[Aa]uthorization.*[Aa]uthorization)'
    . '(?=.*"x-first":"1")(?=.*"connection_known":true)';

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', q(NangoTest::sim('reset');
        NangoTest::sim('state', '{"connections":[{"integration":"github",'
            . '"connection_id":"c-1","tags":{"end_user_id":"42"}},'
            . '{"integration":"github","connection_id":"c-2",'
            . '"tags":{"end_user_id":"43"}}]}')))
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: whose it is decides; method, path, query and body pass
--- config eval: $::Config
--- request eval
::steps('GET /api/user', 'GET /api/user', 'GET /api/user',
        "PATCH /api/a/b?c=d&e=%2F\n{\"x\":1}", 'DELETE /api/', 'HEAD /api/x')
--- more_headers eval: ::headers(42, 43, 44, 42, 42, 42)
--- error_code eval: ::codes(200, 200, 404, 200, 200, 200)
--- response_body_like eval
::bodies('"method":"GET","path":"/user",.*"connection-id":"c-1"',
         '"connection-id":"c-2"', 'connection_not_found',
         '"method":"PATCH","path":"/a/b\?c=d&e=%2F",.*'
         . '"body":"\{\\\\"x\\\\":1\}"', '"method":"DELETE","path":"/"', '^$')



=== TEST 2: headers of a hostile client, in all cases, once and again
--- config eval: $::Config
--- request eval: ::steps(('GET /api/x') x 5)
--- more_headers eval
::headers("42\n" . ::hostile(1), "42\n" . ::hostile(1, sub { lc $_[0] }),
          "42\n" . ::hostile(1, sub { uc $_[0] }), "42\n" . ::hostile(2),
          "42\n" . ::hostile(5, sub { ucfirst lc $_[0] }))
--- response_body_like eval: ::bodies(($::Clean) x 5)



=== TEST 3: many headers, in several parts of nginx's list
--- config eval: $::Config
--- request eval: ::steps(('GET /api/x') x 3)
--- more_headers eval
::headers("42\nX-First: 1\n" . CORE::join("\n", map { "X-H$_: v$_" } 1 .. 16)
          . "\nCookie: evil=1",
          "42\nX-First: 1\n" . CORE::join("\n", map { "X-H$_: v$_\nCookie: evil=$_" }
                                    1 .. 40),
          "42\nX-First: 1\n" . CORE::join("\n", map { "X-H$_: v$_" } 1 .. 59)
          . "\nBase-Url-Override: evil")
--- response_body_like eval
::bodies($::Clean . '(?=.*"x-h16":"v16")', $::Clean . '(?=.*"x-h40":"v40")',
         $::Clean . '(?=.*"x-h59":"v59")')



=== TEST 4: no way out of the proxy
--- config eval: $::Config
--- request eval
::steps(map { "GET $_" } '/api/../connections', '/api/%2e%2e/connections',
        '/api/..%2fconnections', '/api//evil.example/x', '/api/./x',
        '/api/%2fx', '/api/http://evil.example/', '/api/%252e%252e/x',
        '/api/a/../../connections', '/api/x?../../y')
--- more_headers eval: ::headers((42) x 10)
--- error_code eval
::codes(200, 200, 200, 200, 200, 200, 200, 200, 200, 200)
--- response_body_like eval
::bodies(('^\{"connections":\[\{"id"') x 3, '"path":"/evil\.example/x"',
         '"path":"/x"', '"path":"/x"', '"path":"/http:/evil\.example/"',
         '"path":"/%252e%252e/x"', '"connections"',
         '"path":"/x\?\.\./\.\./y"')



=== TEST 5: a page of another origin
--- config eval: $::Config
--- request eval
::steps(('GET /api/x') x 3, ('GET /listed/x') x 3, 'OPTIONS /listed/x',
        'GET /_sim/requests?path=/proxy')
--- more_headers eval
::headers("42\nOrigin: https://evil.example", "42\nOrigin: null",
          "42\nSec-Fetch-Site: cross-site",
          "42\nOrigin: https://app.example.com",
          "42\nOrigin: https://evil.example", "42",
          "42\nOrigin: https://app.example.com\n"
          . 'Access-Control-Request-Method: GET', 42)
--- error_code eval: ::codes(403, 403, 403, 200, 403, 200, 204, 200)
--- response_body_like eval
::bodies(('origin_not_allowed') x 3, '"path":"/x"', 'origin_not_allowed',
         '"path":"/x"', '^$', '^\{"count":2,')



=== TEST 6: who may read it is said here and not by the provider
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","tags":{"end_user_id":"42"}}]}');
NangoTest::sim('faults', '{"faults":[{"path":"/proxy/*","headers":{'
    . '"Access-Control-Allow-Origin":"*",'
    . '"ACCESS-CONTROL-ALLOW-CREDENTIALS":"evil",'
    . '"access-control-expose-headers":"X-Secret","X-Other":"1"}}]}')
--- config eval: $::Config
--- request eval: ::steps('GET /api/x', 'GET /listed/x', 'GET /listed/x')
--- more_headers eval
::headers(42, 42, "42\nOrigin: https://app.example.com")
--- raw_response_headers_like eval
['', '', '', '(?is)^(?!.*Access-Control).*X-Other: 1',
 '(?is)^(?!.*Access-Control).*X-Other: 1.*Vary: Origin',
 '(?is)^(?!.*(?:X-Secret|evil)).*X-Other: 1.*'
 . 'Access-Control-Allow-Origin: https://app\.example\.com']



=== TEST 7: our key goes nowhere else: error_page, X-Accel-Redirect, a mirror
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","tags":{"end_user_id":"42"}}]}');
NangoTest::sim('faults', '{"faults":['
    . '{"path":"/proxy/broken","status":500},'
    . '{"path":"/proxy/accel","headers":{"X-Accel-Redirect":"/other"}},'
    . '{"path":"/proxy/named","headers":{"X-Accel-Redirect":"@named"}}]}')
--- config eval
$::Config . <<'EOF';
    location /err/ {
        nango_require github proxy;
        proxy_intercept_errors on;
        error_page 500 = @named;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location /page/ {
        nango_require github proxy;
        proxy_intercept_errors on;
        error_page 500 /other;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location /mirrored/ {
        nango_require github proxy;
        mirror /copy;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location @named {
        rewrite ^ /echo break;
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT;
    }
    location = /other {
        proxy_method GET;
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/echo;
    }
    location = /copy {
        internal;
        proxy_pass $TEST_NGINX_NANGO_API/copied;
    }
    if ($uri = /early) { set $seen $http_authorization; }
    location = /early { return 200 $seen; }
    location /soon/ {
        nango_require github proxy;
        proxy_intercept_errors on;
        error_page 500 /early;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location = /echo {
        return 200 "<$http_authorization> <$http_connection_id> <$http_cookie> <$http_base_url_override>";
    }
EOF
--- request eval
::steps('GET /err/broken', 'GET /err/broken', 'GET /page/broken',
        'GET /api/accel', 'GET /api/named', 'GET /soon/broken',
        'GET /mirrored/x', 'GET /_sim/requests?path=/copied')
--- more_headers eval
::headers("42\nAuthorization: mine\nCookie: a=b\nConnection-Id: x\n"
          . 'Connection: close', 42, 42, 42,
          "42\nCookie: a=b", "42\nAuthorization: mine",
          "42\nAuthorization: mine\nCookie: a=b\nBase-Url-Override: y", 42)
--- error_code eval: ::codes(200, 200, 500, 200, 200, 500, 200, 200)
--- response_body_like eval
::bodies('^<mine> <x> <a=b> <>$', '^<> <> <> <>$', '^<> <> <> <>$',
         '^<> <> <> <>$', '^<> <> <a=b> <>$', '^mine$',
         '"connection-id":"c-1"',
         '^(?!.*c-1)(?!.*Bearer)\{"count":1,.*"mine".*"a=b"')



=== TEST 8: with credentials as well; in a location below
--- config eval
$::Config . <<'EOF';
    location /both/ {
        nango_require github proxy credentials;
        location /both/inner/ {
            proxy_set_header X-Has $nango_credential_type;
            proxy_pass $TEST_NGINX_NANGO_API/proxy/;
        }
    }
EOF
--- request eval: ::steps('GET /both/inner/x')
--- more_headers eval: ::headers("42\nX-First: 1\nCookie: evil")
--- response_body_like eval
::bodies('"x-has":"OAUTH2".*"connection-id":"c-1"')



=== TEST 9: a client's cookies are in no variable, and afterwards they are
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","tags":{"end_user_id":"42"}}]}');
NangoTest::sim('faults', '{"faults":[{"path":"/proxy/broken","status":500}]}')
--- config eval
$::Config . <<'EOF';
    location /seen/ {
        nango_require github proxy;
        proxy_set_header X-Seen "<$http_cookie$cookie_a>";
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location /late/ {
        nango_require github proxy;
        proxy_intercept_errors on;
        error_page 500 =200 /was;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
    location = /was {
        add_header X-Was "<$remote_user> <$cookie_a>";
        empty_gif;
    }
EOF
--- request eval: ::steps('GET /seen/x', 'GET /late/broken')
--- more_headers eval
::headers("42\nCookie: a=b",
          "42\nCookie: a=b\nAuthorization: Basic bWU6cHc=")
--- response_body_like eval: ::bodies('"x-seen":"<>"', 'GIF')
--- raw_response_headers_like eval: ['', '', '', '', 'X-Was: <me> <b>\r']



=== TEST 10: an id that no header can say is not taken for that of another
--- config eval
$::Config . <<'EOF';
    location /other/ {
        nango_require "github " proxy;
        proxy_pass $TEST_NGINX_NANGO_API/proxy/;
    }
EOF
--- request eval
[(map { webhook(event('creation', 'true', @$_)) } @::Unsaid),
 'GET /connections', ('GET /api/x') x 3, 'GET /other/x',
 'GET /_sim/requests?path=/proxy']
--- more_headers eval
[(map { signature(event('creation', 'true', @$_)) } @::Unsaid),
 map { "X-User: $_" } 51, 51, 52, 53, 54, 51]
--- error_code eval: [(200) x 5, (404) x 4, 200]
--- response_body_like eval
[('"ack":true') x 4, '"connections":\[\{"id"',
 ('connection_not_found') x 4, '^\{"count":0,']
