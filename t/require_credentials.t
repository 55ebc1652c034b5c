# nango_require ... credentials: what Nango says of a connection's credentials,
# asked for once and kept until something is heard of the connection.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Config = <<'EOF';
    nango_owner end_user_id $http_x_user;
    nango_session_limit off;

    location = /webhook { nango_webhook; }
    location = /connections { nango_expose connection_id; nango_connections; }

    location /to/ {
        nango_require github credentials;
        proxy_set_header Authorization $nango_authorization;
        proxy_set_header X-Token "$nango_credential";
        proxy_set_header X-More "$nango_credential_username|$nango_config_subdomain|$nango_credential_type|$nango_credential_raw|$nango_credential_Refresh_Token";
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/echo;
    }
    location = /optional {
        nango_require github optional credentials;
        proxy_set_header X-Token "$nango_credential";
        proxy_set_header X-More "$nango_connection_status";
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/echo;
    }
    location /echo {
        return 200 "<$http_authorization> <$http_x_token> <$http_x_more>";
    }
    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $Json = "X-User: 42\nContent-Type: application/json";
our $Seen = 'GET /_sim/requests?method=GET&path=/connections';

our @Events;

# Events, then a look that waits until they are in the state, then the rest.
# A string that begins with "{" is one more event, told of and looked at.
sub steps {
    my ($events, @requests) = @_;

    @Events = @$events;

    return [(map { webhook($_) } @Events), 'GET /connections',
            map { /^\{/ ? (webhook($_), 'GET /connections') : $_ } @requests];
}

sub headers {
    return [(map { signature($_) } @Events), 'X-User: 42',
            map { /^\{/ ? (signature($_), 'X-User: 42') : "X-User: $_" } @_];
}

sub codes {
    return [(200) x @Events, 200, @_];
}

sub bodies {
    return [('"ack":true') x @Events, '"connections"', @_];
}

# What the simulator has: credentials, and what else is in it.
sub nango {
    my ($credentials, $config) = @_;

    $config = '{"subdomain":"acme"}' if !defined $config;

    NangoTest::sim('reset');
    NangoTest::sim('state', '{"connections":[{"integration":"github",'
        . '"connection_id":"c-1","tags":{"end_user_id":"42"},"credentials":'
        . $credentials . ',"connection_config":' . $config . '}]}');
}

# The simulator's answer about the connection is this one.
sub answers {
    my ($effect) = @_;

    nango('{"type":"OAUTH2","access_token":"t-1"}');
    NangoTest::sim('faults', '{"faults":[{"method":"GET",'
                             . '"path":"/connections/c-1",' . $effect . '}]}');
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42'));
our $Override = event('override', 'true', 'c-1', end_user_id => '42');
our $Refresh = event('refresh', 'false', 'c-1', error => 'revoked');
our $Delete = event('deletion', 'true', 'c-1');
our $Other = event('override', 'true', 'c-1', end_user_id => '43');
our $Fine = '^<Bearer t-1> <t-1> <\|acme\|OAUTH2\|\|>$';

# One call, or as many.
sub calls {
    return '^\{"count":' . (@_ ? $_[0] : 1) . ',';
}

sub error {
    return '^\{"error":\{"code":"' . $_[0] . '"';
}

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init',
                      q(::nango('{"type":"OAUTH2","access_token":"t-1"}')))
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: asked for once, whoever asks
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'POST /to/x', 'GET /optional', 'GET /to/x',
        'GET /optional', $::Seen)
--- more_headers eval: ::headers(42, 42, 42, 43, 43, 42)
--- error_code eval: ::codes(200, 200, 200, 404, 200, 200)
--- response_body_like eval
::bodies($::Fine, $::Fine, '^<> <t-1> <valid>$',
         ::error('connection_not_found'), '^<> <> <>$',
         ::calls . '.*/connections/c-1\?provider_config_key=github"')



=== TEST 2: an API key
--- init
::nango('{"type":"API_KEY","apiKey":"hush-hush"}')
--- config eval: $::Config
--- request eval: ::steps(\@::One, 'GET /to/x')
--- more_headers eval: ::headers(42)
--- response_body_like eval
::bodies('^<Bearer hush-hush> <hush-hush> <\|acme\|API_KEY\|\|>$')



=== TEST 3: a name and a password
--- init
::nango('{"type":"BASIC","username":"me","password":"hush-hush"}')
--- config eval: $::Config
--- request eval: ::steps(\@::One, 'GET /to/x')
--- more_headers eval: ::headers(42)
--- response_body_like eval
::bodies('^<Basic bWU6aHVzaC1odXNo> <hush-hush> <me\|acme\|BASIC\|\|>$')



=== TEST 4: none at all
--- init
::nango('{}')
--- config eval: $::Config
--- request eval: ::steps(\@::One, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- response_body_like eval
::bodies(('^<> <> <\|acme\|\|\|>$') x 2, ::calls)



=== TEST 5: a line break begins no header
--- init
::nango('{"type":"API_KEY","apiKey":"hush\r\nX-More: evil","username":"a\nb"}',
        '{"subdomain":"a\r\n\r\nGET /"}')
--- config eval: $::Config
--- request eval: ::steps(\@::One, 'GET /to/x')
--- more_headers eval: ::headers(42)
--- response_body_like eval
::bodies('^<> <> <\|\|API_KEY\|\|>$')



=== TEST 6: dropped at once when it is authorised again
--- init
::nango('{"type":"OAUTH2","access_token":"t-1"}');
NangoTest::sim('faults', '{"faults":[{"path":"/connections/c-1","skip":1,'
    . '"delay_ms":200,"status":200,"body":"{\"connection_id\":\"c-1\",'
    . '\"provider_config_key\":\"github\",\"credentials\":'
    . '{\"type\":\"API_KEY\",\"apiKey\":\"t-2\"}}"}]}')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', $::Override, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, $::Override, 42, 42, 42)
--- response_body_like eval
::bodies($::Fine, '"ack":true', '"connections"', ('^<Bearer t-2>') x 2,
         ::calls(2))



=== TEST 7: not used when it is invalid, nor asked for
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', $::Refresh, 'GET /to/x', 'GET /optional',
        $::Seen)
--- more_headers eval: ::headers(42, $::Refresh, 42, 42, 42)
--- error_code eval: ::codes(200, 200, 200, 409, 200, 200)
--- response_body_like eval
::bodies($::Fine, '"ack":true', '"connections"', ::error('connection_invalid'),
         '^<> <> <invalid>$', ::calls)



=== TEST 8: nor when it is deleted, or somebody else's
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', $::Other, 'GET /to/x', 'GET /to/x', $::Delete,
        'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval
::headers(42, $::Other, 42, 43, $::Delete, 42, 43, 42)
--- error_code eval
::codes(200, 200, 200, 404, 200, 200, 200, 404, 404, 200)
--- response_body_like eval
::bodies($::Fine, '"ack":true', '"connections"', 'not_found', $::Fine,
         '"ack":true', '"connections"', 'not_found', 'not_found', ::calls(2))



=== TEST 9: Nango has no such connection; that is kept for a while
--- init
::answers('"status":404,"body":"{\"error\":{\"code\":\"not_found\"}}"')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', 'GET /optional', $::Seen)
--- more_headers eval: ::headers(42, 42, 42, 42)
--- error_code eval: ::codes(404, 404, 200, 200)
--- response_body_like eval
::bodies((::error('connection_not_found')) x 2, '^<> <> <valid>$', ::calls)



=== TEST 10: they are bad there
--- init
::nango('{"type":"OAUTH2","access_token":"t-1"}');
NangoTest::sim('refresh-fail', '{"integration":"github",'
    . '"connection_id":"c-1","webhook":false,'
    . '"error":{"type":"t","description":"The token was revoked"}}')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(409, 409, 200)
--- response_body_like eval
::bodies((::error('connection_invalid') . '.*"id":"[0-9a-f]{32}"\}$') x 2,
         ::calls)



=== TEST 11: too many requests: nothing more is sent
--- init
::answers('"status":429,"retry_after":7')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(429, 429, 200)
--- response_body_like eval
::bodies((::error('rate_limited')) x 2, ::calls)
--- raw_response_headers_like eval
['', '', ('Retry-After: [67]') x 2, '']



=== TEST 12: Nango is in trouble
--- init
::answers('"status":500')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', 'GET /optional', $::Seen)
--- more_headers eval: ::headers(42, 42, 42, 42)
--- error_code eval: ::codes(502, 502, 200, 200)
--- response_body_like eval
::bodies((::error('nango_error')) x 2, '^<> <> <valid>$', ::calls)



=== TEST 13: a reply about another connection, and others that are none
--- init
::answers('"times":1,"body":"{\"connection_id\":\"c-2\",'
          . '\"provider_config_key\":\"github\",\"credentials\":'
          . '{\"type\":\"API_KEY\",\"apiKey\":\"hush-hush\"}}"')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(502, 502, 200)
--- response_body_like eval
::bodies((::error('nango_error')) x 2, ::calls)



=== TEST 14: credentials that are too long
--- init
::nango('{"type":"API_KEY","apiKey":"' . 'x' x 20000 . '"}')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x')
--- more_headers eval: ::headers(42, 42)
--- error_code eval: ::codes(502, 502)



=== TEST 15: ids that have to be escaped, and one that goes into no path
--- config eval
$::Config . <<'EOF';
    location = /odd {
        nango_require "a b:c@d.e_f~g-h" credentials;
        empty_gif;
    }
EOF
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"integrations":[{"id":"a b:c@d.e_f~g-h"}],'
    . '"connections":[{"integration":"a b:c@d.e_f~g-h",'
    . '"connection_id":"x/../y|{z}","tags":{"end_user_id":"42"}}]}')
--- request eval
::steps([event('creation', 'true', 'x/../y|{z}', end_user_id => '42',
               integration => 'a b:c@d.e_f~g-h'),
         event('creation', 'true', '..', end_user_id => '43',
               integration => 'a b:c@d.e_f~g-h')],
        'GET /odd', ('GET /odd') x 2, $::Seen)
--- more_headers eval: ::headers(42, 43, 43, 42)
--- error_code eval: ::codes(200, 404, 404, 200)
--- response_body_like eval
::bodies('GIF', (::error('connection_not_found')) x 2,
         ::calls . '.*/connections/x%2F..%2Fy%7C%7Bz%7D\?'
         . 'provider_config_key=a%20b%3Ac%40d.e_f~g-h"')



=== TEST 16: shortly before they expire they are asked for again
--- init
::nango('{"type":"OAUTH2","access_token":"t-1","expires_at":"'
        . do { my @t = gmtime(time + 61);
               sprintf '%d-%02d-%02dT%02d:%02d:%02d.000Z', $t[5] + 1900,
                       $t[4] + 1, @t[3, 2, 1, 0] } . '"}');
NangoTest::sim('faults', '{"faults":[{"path":"/health","delay_ms":2000}]}')
--- config eval
$::Config . <<'EOF';
    location = /health {
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /health', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42, 42)
--- timeout: 20
--- response_body_like eval
::bodies($::Fine, 'ok', $::Fine, ::calls(2))



=== TEST 17: kept although they do not expire for long
--- init
::nango('{"type":"OAUTH2","access_token":"t-1","expires_at":"'
        . (1901 + (gmtime)[5]) . '-12-31T00:00:00.000Z"}')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- response_body_like eval: ::bodies($::Fine, $::Fine, ::calls)



=== TEST 18: too many requests: nothing of any other connection either
--- init
::answers('"status":429,"retry_after":7')
--- config eval: $::Config
--- request eval
::steps([@::One, event('creation', 'true', 'c-2', end_user_id => '43')],
        ('GET /to/x') x 3, $::Seen)
--- more_headers eval: ::headers(42, 43, 43, 42)
--- error_code eval: ::codes((429) x 3, 200)
--- response_body_like eval
::bodies((::error('rate_limited')) x 3, ::calls)



=== TEST 19: only a 404 that says so is of no such connection
--- init
NangoTest::sim('reset');
NangoTest::sim('faults', '{"faults":['
    . '{"path":"/connections/c-1","status":404,"body":"not_found"},'
    . '{"path":"/connections/c-2","status":404,'
    . '"body":"{\"error\":{\"code\":\"unknown\"}}"},'
    . '{"path":"/connections/c-3","status":500,'
    . '"body":"{\"error\":{\"code\":\"not_found\"}}"}]}')
--- config eval: $::Config
--- request eval
::steps([map { event('creation', 'true', "c-$_", end_user_id => $_) } 1 .. 3],
        ('GET /to/x') x 3)
--- more_headers eval: ::headers(1 .. 3)
--- error_code eval: ::codes((502) x 3)
--- response_body_like eval: ::bodies((::error('nango_error')) x 3)



=== TEST 20: a failure is of what there was then, too
--- init
::nango('{"type":"OAUTH2","access_token":"t-1"}');
NangoTest::sim('faults', '{"faults":[{"path":"/connections/c-1","times":1,'
    . '"status":500},{"path":"/connections/c-1","delay_ms":200}]}')
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /to/x', $::Override, 'GET /to/x', $::Seen)
--- more_headers eval: ::headers(42, $::Override, 42, 42)
--- error_code eval: ::codes(502, 200, 200, 200, 200)
--- response_body_like eval
::bodies(::error('nango_error'), '"ack":true', '"connections"', $::Fine,
         ::calls(2))
