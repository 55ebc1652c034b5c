# POST of nango_connections: what Nango says of a connection is recorded.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Config = <<'EOF';
    nango_session_limit off;

    location = /webhook { nango_webhook; }

    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }

    location = /org {
        nango_owner  organization_id $http_x_org;
        nango_expose connection_id tags;
        nango_connections;
    }

    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $Json = "X-User: 42\nContent-Type: application/json";
our $Other = "X-User: 43\nContent-Type: application/json";
our $List = 'GET /connections';
our $Seen = 'GET /_sim/requests?method=GET';

# The events that made connections; "given" puts them before what is asked.
our @Events;

sub given {
    my ($events, @requests) = @_;

    @Events = @$events;

    return [(map { webhook($_) } @Events), @requests];
}

sub headers {
    return [(map { signature($_) } @Events), @_];
}

sub codes {
    return [(200) x @Events, @_];
}

sub bodies {
    return [('"ack":true') x @Events, @_];
}

sub check {
    my ($connection, $integration) = @_;

    $integration = 'github' if !defined $integration;

    return "POST /connections\n{\"integration\":\"$integration\","
           . "\"connection_id\":\"$connection\"}";
}

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

sub by_id {
    return "POST /connections\n{\"id\":\"" . id('prod', @_) . '"}';
}

# What the simulator has: connection => tags.
sub nango {
    my (%connections) = @_;

    NangoTest::sim('reset');
    NangoTest::sim('state', '{"connections":['
        . join(',', map {
            qq({"integration":"github","connection_id":"$_",)
            . qq("tags":$connections{$_}})
        } sort keys %connections) . ']}');
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42'));
our @Broken = (@One, event('refresh', 'false', 'c-1', error => 'revoked'));
our $Not_there = '^\{"error":\{"code":"connection_not_found",'
                 . '"message":"There is no such connection"\}\}$';

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', q(::nango('c-1' => '{"end_user_id":"42"}')))
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: valid, and so it stays; what Nango was asked
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List, $::Seen)
--- more_headers eval: ::headers($::Json, 'X-User: 42', '')
--- response_body_like eval
::bodies('^\{"id":"' . ::id('prod', 'github', 'c-1') . '",'
         . '"integration":"github","provider":"github","status":"valid",'
         . '.*"error":null,"owner":\{"end_user_id":"42"\},.*'
         . '"connection_id":"c-1","tags":\{"end_user_id":"42"\}\}$',
         '"status":"valid".*"sequence":2,',
         '"count":1,.*"path":"/connections/c-1\?provider_config_key=github"')



=== TEST 2: invalid here and valid there: repaired
--- config eval: $::Config
--- request eval
::given(\@::Broken, $::List, ::by_id('github', 'c-1'), $::List)
--- more_headers eval: ::headers('X-User: 42', $::Json, 'X-User: 42')
--- response_body_like eval
::bodies('"status":"invalid"', '"status":"valid".*"error":null',
         '"status":"valid".*"error":null.*"sequence":3,')



=== TEST 3: the credentials are bad there
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('refresh-fail', '{"integration":"github",'
    . '"connection_id":"c-1","webhook":false,'
    . '"error":{"type":"t","description":"The token was revoked \u00fc"}}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List, ::by_id('github', 'c-1'))
--- more_headers eval: ::headers($::Json, 'X-User: 42', $::Json)
--- response_body_like eval
my $error = qq("error":\\{"type":"invalid_credentials",)
            . qq("description":"The token was revoked \x{c3}\x{bc}"\\});
::bodies("\"status\":\"invalid\".*$error.*\"tags\":\\{\"end_user_id\":\"42\"",
         "\"status\":\"invalid\".*$error", "\"status\":\"invalid\".*$error")



=== TEST 4: with whatever status
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('refresh-fail', '{"integration":"github",'
    . '"connection_id":"c-1","webhook":false,"status":500}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'))
--- more_headers eval: ::headers($::Json)
--- response_body_like eval: ::bodies('"status":"invalid"')



=== TEST 5: a long text in other letters, cut within a character
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('faults', '{"faults":[{"method":"GET",'
    . '"path":"/connections/c-1","status":424,"body":"{\"error\":{\"code\":'
    . '\"invalid_credentials\",\"message\":\"x' . '\u20ac' x 400 . '\"}}",'
    . '"headers":["Content-Type","application/json"]}]}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'))
--- more_headers eval: ::headers($::Json)
--- response_body_like eval
my $euro = "\x{e2}\x{82}\x{ac}";
::bodies(qq("status":"invalid".*"description":"x(?:$euro){100,170}"\\}))



=== TEST 6: gone there: deleted here, and a late webhook changes nothing
--- init
::nango()
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List, webhook($::One[0]),
      webhook(::event('override', 'true', 'c-1', end_user_id => '42')),
      $::List)
--- more_headers eval
::headers($::Json, 'X-User: 42', signature($::One[0]),
          signature(::event('override', 'true', 'c-1', end_user_id => '42')),
          'X-User: 42')
--- error_code eval: ::codes(404, 200, 200, 200, 200)
--- response_body_like eval
::bodies($::Not_there, '"connections":\[\],', '"ack":true', '"ack":true',
         '"connections":\[\],')



=== TEST 7: nothing but a 404 that says so deletes anything
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('faults', '{"faults":['
    . join(',', map { '{"method":"GET","path":"/connections/c-1","times":1,'
                      . $_ . '}' }
           '"status":404,"body":"<html>not found</html>",'
           . '"headers":["Content-Type","text/html"]',
           map { qq("status":$_->[0],"body":"{\\"error\\":{\\"code\\":)
                 . qq(\\"$_->[1]\\"}}",)
                 . '"headers":["Content-Type","application/json"]' }
           [500, 'not_found'], [404, 'unknown'],
           [400, 'unknown_provider_config'])
    . ']}')
--- config eval: $::Config
--- request eval
::given(\@::One, (::by_id('github', 'c-1')) x 4, $::List)
--- more_headers eval: ::headers(($::Json) x 4, 'X-User: 42')
--- error_code eval: ::codes((502) x 4, 200)
--- response_body_like eval
::bodies(('"nango_error"') x 4, '"status":"valid".*"sequence":1,')



=== TEST 8: unknown here, the caller's there: adopted
--- config eval: $::Config
--- request eval
['GET /connections', ::check('c-1'), 'GET /connections']
--- more_headers eval
['X-User: 42', $::Json, 'X-User: 42']
--- response_body_like eval
['"connections":\[\]', '"status":"valid".*"connection_id":"c-1"',
 '"connection_id":"c-1".*"sequence":1,']



=== TEST 9: adopted, broken, and well again as it was adopted
--- config eval: $::Config
--- request eval
[::check('c-1'), webhook($::Broken[1]), $::List, ::check('c-1'), $::List]
--- more_headers eval
[$::Json, signature($::Broken[1]), 'X-User: 42', $::Json, 'X-User: 42']
--- response_body_like eval
['"status":"valid"', '"ack":true', '"status":"invalid"', '"status":"valid"',
 '"status":"valid".*"sequence":3,']



=== TEST 10: by the tags of the older form as well
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","end_user":{"id":"42","email":"a@b.co",'
    . '"display_name":null,"tags":{"plan":"pro"},'
    . '"organization":{"id":"acme","display_name":"Acme"}}}]}')
--- config eval: $::Config
--- request eval
[::check('c-1'), "POST /org\n{\"integration\":\"github\","
    . '"connection_id":"c-1"}']
--- more_headers eval
[$::Json, "X-Org: acme\nContent-Type: application/json"]
--- response_body_like eval
[('"tags":\{"plan":"pro","end_user_id":"42","end_user_email":"a@b\.co",'
  . '"organization_id":"acme","organization_display_name":"Acme"\}|'
  . '"tags":\{"end_user_id":"42",.*"plan":"pro"') x 2]



=== TEST 11: somebody else's there: not there, and nothing is recorded
--- init
::nango('c-1' => '{"end_user_id":"43"}', 'c-2' => '{}',
        'c-3' => '{"end_user_id":"42x"}', 'c-4' => '{"organization_id":"42"}',
        'c-5' => '{"end_user_id":"4"}')
--- config eval: $::Config
--- request eval
[(map { ::check("c-$_") } 1 .. 6), $::List]
--- more_headers eval
[($::Json) x 6, 'X-User: 42']
--- error_code eval
[(404) x 6, 200]
--- response_body_like eval
[($::Not_there) x 6, '"connections":\[\],"sequence":0,']



=== TEST 12: somebody else's here as well, with whatever Nango says
--- init
::nango('c-1' => '{"end_user_id":"42"}', 'c-2' => '{"end_user_id":"42"}');
NangoTest::sim('refresh-fail', '{"integration":"github",'
    . '"connection_id":"c-2","webhook":false}')
--- config eval: $::Config
--- request eval
::given([map { ::event('creation', 'true', $_, end_user_id => '42') }
       qw( c-1 c-2 c-3 )], ::by_id('github', 'c-1'),
      (map { ::check("c-$_") } 1 .. 3), 'GET /connections')
--- more_headers eval: ::headers(($::Other) x 4, 'X-User: 42')
--- error_code eval: ::codes(404, 404, 404, 404, 200)
--- response_body_like eval
::bodies(($::Not_there) x 4,
         '^(?!.*invalid).*"c-3".*"c-2".*"c-1".*"sequence":3,')



=== TEST 13: an integration that Nango does not know
--- config eval: $::Config
--- request eval
[::check('c-1', 'none'), ::check('c-1', 'slack')]
--- more_headers eval
[$::Json, $::Json]
--- error_code eval
[404, 404]
--- response_body_like eval
[($::Not_there) x 2]



=== TEST 14: the tags were wiped there: they stay here
--- init
::nango('c-1' => '{}')
--- config eval: $::Config
--- request eval
::given(\@::Broken, ::by_id('github', 'c-1'), ::check('c-1'))
--- more_headers eval: ::headers($::Json, $::Json)
--- response_body_like eval
::bodies('"status":"valid".*"tags":\{"end_user_id":"42"\}',
         '"status":"valid".*"tags":\{"end_user_id":"42"\}')



=== TEST 15: it is somebody else's now: theirs it becomes
--- init
::nango('c-1' => '{"end_user_id":"43","plan":"pro"}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List, $::List)
--- more_headers eval: ::headers($::Json, 'X-User: 42', 'X-User: 43')
--- error_code eval: ::codes(404, 200, 200)
--- response_body_like eval
::bodies($::Not_there, '"connections":\[\],',
         '"owner":\{"end_user_id":"43"\}.*"c-1"')



=== TEST 16: deleted here, alive and the caller's there: back again
--- config eval: $::Config
--- request eval
::given([@::One, ::event('deletion', 'true', 'c-1')], $::List,
      ::by_id('github', 'c-1'), ::check('c-1'), $::List)
--- more_headers eval
::headers('X-User: 42', $::Json, $::Json, 'X-User: 42')
--- error_code eval: ::codes(200, 404, 200, 200)
--- response_body_like eval
::bodies('"connections":\[\],', $::Not_there, '"c-1"', '"c-1"')



=== TEST 17: adopted by one who is not the one who had it
--- init
::nango('c-1' => '{"end_user_id":"43"}')
--- config eval: $::Config
--- request eval
::given([@::One, ::event('deletion', 'true', 'c-1')],
      ::check('c-1'), ::check('c-1'), $::List)
--- more_headers eval
::headers($::Json, $::Other, 'X-User: 42')
--- error_code eval: ::codes(404, 200, 200)
--- response_body_like eval
::bodies($::Not_there, '"end_user_id":"43"', '"connections":\[\],')



=== TEST 18: replies about something else are none
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('faults', '{"faults":['
    . join(',', map {
        my $body = $_;
        $body =~ s/"/\\"/g;
        qq({"method":"GET","path":"/connections/c-1","times":1,)
        . qq("body":"$body"})
    } (
        '{"connection_id":"c-2","provider_config_key":"github",'
        . '"tags":{"end_user_id":"42"}}',
        '{"connection_id":"c-1","provider_config_key":"slack",'
        . '"tags":{"end_user_id":"42"}}',
        '{"connection_id":"C-1","provider_config_key":"github",'
        . '"tags":{"end_user_id":"42"}}',
        '{"connectionId":"c-1","providerConfigKey":"github"}',
        '{"tags":{"end_user_id":"42"}}', '[]', 'null', '{', '',
        '[{"connection_id":"c-1","provider_config_key":"github"}]',
        '{"connection_id":["c-1"],"provider_config_key":"github"}')) . ']}')
--- config eval: $::Config
--- request eval
::given(\@::One, (::by_id('github', 'c-1')) x 11, $::List)
--- more_headers eval: ::headers(($::Json) x 11, 'X-User: 42')
--- error_code eval: ::codes((502) x 11, 200)
--- response_body_like eval
::bodies(('"nango_error"') x 11, '"status":"valid".*"sequence":1,')



=== TEST 19: a good reply of another type is none either
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('faults', '{"faults":[{"method":"GET",'
    . '"path":"/connections/c-1","content_type":"text/html"}]}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'))
--- more_headers eval: ::headers($::Json)
--- error_code eval: ::codes(502)



=== TEST 20: Nango says that it has to be authorised again
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","tags":{"end_user_id":"42"},'
    . '"errors":[{"type":"sync","log_id":"a"},{"type":"auth","log_id":"b"}]}'
    . ']}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'))
--- more_headers eval: ::headers($::Json)
--- response_body_like eval: ::bodies('"status":"invalid"')



=== TEST 21: also of one that is adopted
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":[{"integration":"github",'
    . '"connection_id":"c-1","tags":{"end_user_id":"42"},'
    . '"errors":[{"type":"auth","log_id":"b"}]}]}')
--- config eval: $::Config
--- request eval
[::check('c-1'), ::check('c-1')]
--- more_headers eval
[$::Json, $::Json]
--- response_body_like eval
['"status":"invalid"', '"status":"invalid"']



=== TEST 22: Nango is slow, over its limit, failing, cut short
--- init
::nango('c-1' => '{"end_user_id":"42"}');
NangoTest::sim('faults', '{"faults":['
    . join(',', map { '{"method":"GET","path":"/connections/c-1","times":1,'
                      . $_ . '}' }
           '"hang":true', '"status":500', '"cut_after":40', '"bad_json":true',
           '"huge":2000000', '"status":401', '"status":429,"retry_after":30')
    . ']}')
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        api                 \$TEST_NGINX_NANGO_API;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$NangoTest::API_KEY;
        reconcile           off;
        webhook_signing_key data:$NangoTest::KEY;
        api_timeout         500ms;
    }
}
--- config eval: $::Config
--- request eval
::given(\@::One, (::by_id('github', 'c-1')) x 8, $::List, $::Seen)
--- more_headers eval: ::headers(($::Json) x 8, 'X-User: 42', '')
--- error_code eval
::codes(504, 502, 503, 502, 502, 502, 429, 429, 200, 200)
--- response_body_like eval
::bodies('nango_timeout', 'nango_error', 'nango_unavailable', 'nango_error',
         'nango_error', 'nango_error', 'rate_limited', 'rate_limited',
         '"status":"valid".*"sequence":1,', '"count":7\b')



=== TEST 23: Nango is down
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$NangoTest::API_KEY;
        reconcile           off;
        webhook_signing_key data:$NangoTest::KEY;
    }
}
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List)
--- more_headers eval: ::headers($::Json, 'X-User: 42')
--- error_code eval: ::codes(503, 200)
--- response_body_like eval
::bodies('nango_unavailable', '"status":"valid".*"sequence":1,')



=== TEST 24: ids that would be other paths are not asked for
--- config eval: $::Config
--- request eval
::given([map { ::event('creation', 'true', $_, end_user_id => '42') } '.', '..'],
      ::by_id('github', '.'), ::by_id('github', '..'), ::check('.'),
      ::check('..'), $::Seen)
--- more_headers eval: ::headers(($::Json) x 4, '')
--- error_code eval: ::codes((404) x 4, 200)
--- response_body_like eval: ::bodies(($::Not_there) x 4, '"count":0\b')



=== TEST 25: ids with whatever is in them stay one part of the path
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"integrations":[{"id":"a b:c","provider":"github",'
    . '"auth":"OAUTH2"}],"connections":[{"integration":"a b:c",'
    . '"connection_id":"{}\\"\'\\\\|/ $=+~[]@.,;:_-","tags":'
    . '{"end_user_id":"42"}},{"integration":"github",'
    . '"connection_id":"../environment","tags":{"end_user_id":"42"}}]}')
--- config eval: $::Config
--- request eval
[::check('{}\\"\'\\\\|/ $=+~[]@.,;:_-', 'a b:c'), ::check('../environment'),
 ::check('?a=b&c#d%2e%00'), ::check("\x{c3}\x{bc}"), $::Seen]
--- more_headers eval
[($::Json) x 4, '']
--- error_code_like eval
['200', '200', '404|502', '404|502', '200']
--- response_body_like eval
['"integration":"a b:c"', '"connection_id":"../environment"', '', '',
 '"path":"/connections/%7B%7D%22%27%5C%7C%2F%20%24%3D%2B~%5B%5D%40.%2C%3B%3A_-'
 . '\?provider_config_key=a%20b%3Ac".*'
 . '"path":"/connections/..%2Fenvironment\?provider_config_key=github".*'
 . '"path":"/connections/%3Fa%3Db%26c%23d%252e%2500\?provider.*'
 . '"path":"/connections/%C3%BC\?']



=== TEST 26: 255 characters, and not one more
--- init
::nango('x' x 255 => '{"end_user_id":"42"}')
--- config eval: $::Config
--- request eval
[::check('x' x 255), ::check('x' x 256), ::check("\x{f0}\x{9f}\x{98}\x{80}" x 127),
 ::check("\x{f0}\x{9f}\x{98}\x{80}" x 128), ::check(''), ::check('a\u0000b'),
 ::check('a\u001fb'), ::check("a\x{ff}b"), ::check('\ud800'), $::Seen]
--- more_headers eval
[($::Json) x 9, '']
--- error_code_like eval
['200', '400', '404|502', ('400') x 6, '200']
--- response_body_like eval
[('') x 9, '"count":2\b']



=== TEST 27: bodies that are none
--- config eval: $::Config
--- request eval
[map { "POST /connections\n$_" } '', '{}', '{"integration":"github"}',
 '{"connection_id":"c-1"}', '{"id":"0","connection_id":"c-1"}',
 '{"id":"0","integration":"github","connection_id":"c-1"}',
 '{"integration":"github","connection_id":1}',
 '{"integration":"github","connection_id":"c-1","force":true}',
 '{"id":null}', 'x']
--- more_headers eval
[($::Json) x 10]
--- error_code eval
[(400) x 10]
--- response_body_like eval
[('"code":"invalid_body"') x 10]



=== TEST 28: nobody
--- config eval: $::Config
--- request eval: ::check('c-1')
--- more_headers
Content-Type: application/json
--- error_code: 401



=== TEST 29: without a key Nango cannot be asked
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:$NangoTest::KEY;
    }
}
--- config eval: $::Config
--- request eval: ::check('c-1')
--- more_headers eval: $::Json
--- error_code: 503
--- response_body_like: "nango_unavailable"
--- error_log
environment "prod" has no api_key



=== TEST 30: without a signing key nothing is signed, and all of it works
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        api        \$TEST_NGINX_NANGO_API;
        api_public https://nango.example.com;
        connect_ui https://connect.nango.dev;
        api_key    data:$NangoTest::API_KEY;
        reconcile  off;
    }
}
--- config
    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }
--- request eval
[::check('c-1'), ::check('c-1'), 'DELETE /connections?integration=github',
 ::check('c-1'), $::List]
--- more_headers eval
[$::Json, $::Json, $::Json, $::Json, $::Json]
--- error_code eval
[200, 200, 200, 404, 200]



=== TEST 31: again and again within the time of repeats
--- config eval: $::Config
--- request eval
::given(\@::One, (::by_id('github', 'c-1')) x 5, $::List)
--- more_headers eval: ::headers(($::Json) x 5, 'X-User: 42')
--- response_body_like eval
::bodies(('"status":"valid"') x 5, '"sequence":6,')



=== TEST 32: what Nango's answer holds besides stays where it is
--- init
::nango('c-1' => '{"end_user_id":"42"}')
--- config eval: $::Config
--- request eval
[::check('c-1'), 'GET /connections']
--- more_headers eval
[$::Json, $::Json]
--- response_body_unlike eval
[('credentials|access_token|metadata') x 2]



=== TEST 33: deleted here, alive there and nobody's: it stays away
--- init
::nango('c-1' => '{}')
--- config eval: $::Config
--- request eval
::given([@::One, ::event('deletion', 'true', 'c-1')], ::check('c-1'), $::List)
--- more_headers eval: ::headers($::Json, 'X-User: 42')
--- error_code eval: ::codes(404, 200)
--- response_body_like eval: ::bodies($::Not_there, '"connections":\[\],')
