# nango_reconnect: whose connection, what Nango is asked, and what not.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Sim = <<'EOF';
    location = /webhook { nango_webhook; }

    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $Config = $Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_session_reuse off;
        nango_reconnect;
    }
EOF

our $Json = "X-User: 42\nContent-Type: application/json";
our $Seen = 'GET /_sim/requests';

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

sub reconnect {
    my ($json, $uri) = @_;

    return 'POST ' . ($uri || '/reconnect') . "\n$json";
}

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

sub by_id {
    return reconnect('{"id":"' . id('prod', @_) . '"}');
}

# The part of the record that holds a body, as the simulator's JSON has it.
sub seen {
    my ($json) = @_;

    $json = '{"connection_id":"c-1","integration_id":"github",' . $json . '}';
    $json =~ s/([\\"])/\\$1/g;

    return '"path":"/connect/sessions/reconnect".*'
           . quotemeta qq("body":"$json");
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42',
                  plan => 'pro', organization_id => 'acme'));
our @Two = (@One, event('creation', 'true', 'c-2', end_user_id => '42'));
our @Others = (@One, event('creation', 'true', 'c-3', end_user_id => '43'));
our @Gone = (@One, event('deletion', 'true', 'c-1'));

our $State = <<'EOF';
NangoTest::sim('reset');
NangoTest::sim('state', '{"connections":['
    . join(',', map { '{"integration":"github","connection_id":"' . $_ . '"}' }
           qw( c-1 c-2 c-3 . .. )) . ']}');
EOF

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', $::State) if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: by integration; the stored tags go along
--- config eval: $::Config
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('^\{"sessionToken":"nango_connect_session_[0-9a-f]{64}",'
    . '"connectLink":"[^"]+apiURL=[^"]+","expiresAt":"20[^"]+Z",'
    . '"apiURL":"https://nango\.example\.com",'
    . '"connectURL":"https://connect\.nango\.dev"\}$',
    '"count":1,.*' . ::seen('"tags":{"end_user_id":"42",'
    . '"organization_id":"acme","plan":"pro"}'))



=== TEST 2: by id, and by the other names of the integration
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::Seen,
      ::reconnect('{"provider_config_key":"github"}'),
      ::reconnect('{"integration_id":"github"}'))
--- more_headers eval: ::headers($::Json, '', $::Json, $::Json)
--- response_body_like eval
::bodies('sessionToken', ::seen('"tags":{"end_user_id":"42",'
    . '"organization_id":"acme","plan":"pro"}'), 'sessionToken', 'sessionToken')



=== TEST 3: an invalid one as well
--- config eval: $::Config
--- request eval
::given([@::One, ::event('refresh', 'false', 'c-1', error => 'x')],
      ::reconnect('{"integration":"github"}'))
--- more_headers eval: ::headers($::Json)
--- response_body_like eval: ::bodies('sessionToken')



=== TEST 4: owner and nango_tag take the place of stored tags
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_tag plan free;
        nango_tag region eu;
        nango_tag none $http_x_none;
        nango_reconnect;
    }
EOF
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('sessionToken', ::seen('"tags":{"end_user_id":"42","plan":"free",'
    . '"region":"eu","organization_id":"acme"}'))



=== TEST 5: the old form
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
        session_format      end_user;
    }
}
--- config eval: $::Config
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('sessionToken', ::seen('"end_user":{"id":"42","tags":{"plan":"pro"}'
    . '},"organization":{"id":"acme"}'))



=== TEST 6: more stored tags than Nango takes: the owner's go first
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_tag region eu;
        nango_reconnect;
    }
EOF
--- request eval
::given([::event('creation', 'true', 'c-1', end_user_id => '42',
               map { ("tag$_" => $_) } 0 .. 9)],
      ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('sessionToken', ::seen('"tags":{"end_user_id":"42","region":"eu",'
    . join(',', map { qq("tag$_":"$_") } 0 .. 7)
    . '}'))



=== TEST 7: what is said of it
--- config eval: $::Config
--- request eval
::given([::event('creation', 'true', 'c-1', end_user_id => '42',
               end_user_email => 'nobody', '1st' => 'x')],
      ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('sessionToken', ::seen('"tags":{"end_user_id":"42"}'))



=== TEST 8: several: the choices, newest first, and Nango is not asked
--- config eval: $::Config
--- request eval
::given(\@::Two, ::reconnect('{"integration":"github"}'), $::Seen,
      ::by_id('github', 'c-1'), $::Seen)
--- more_headers eval: ::headers($::Json, '', $::Json, '')
--- error_code eval: ::codes(409, 200, 200, 200)
--- response_body_like eval
my ($one, $two) = map { ::id('prod', 'github', $_) } qw( c-1 c-2 );
::bodies('^\{"error":\{"code":"connection_ambiguous","message":"[^"]+"\},'
    . qq("choices":\\[\\{"id":"$two","integration":"github",)
    . qq("provider":"github","status":"valid",[^]]*\\},\\{"id":"$one",)
    . '[^]]*\}\]\}$', '"count":0\b', 'sessionToken', '"count":1\b')
--- raw_response_headers_like eval
[('') x 2, '\nX-Nango-Error: connection_ambiguous\s', '', '', '']



=== TEST 9: choices do not say more than was to be exposed
--- config eval
$::Sim . <<'EOF';
    location = /hidden {
        nango_owner end_user_id $http_x_user;
        nango_reconnect;
    }
    location = /exposed {
        nango_owner end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_reconnect;
    }
EOF
--- request eval
::given(\@::Two, ::reconnect('{"integration":"github"}', '/hidden'),
      ::reconnect('{"integration":"github"}', '/exposed'))
--- more_headers eval: ::headers($::Json, $::Json)
--- error_code eval: ::codes(409, 409)
--- response_body_like eval
::bodies('^(?!.*c-[12])(?!.*acme)', '"connection_id":"c-2".*"plan":"pro"')



=== TEST 10: a hundred choices at most
--- config eval: $::Config
--- request eval
::given([map { ::event('creation', 'true', "c-$_", end_user_id => '42') }
       1 .. 101], ::reconnect('{"integration":"github"}'))
--- more_headers eval: ::headers($::Json)
--- error_code eval: ::codes(409)
--- response_body_like eval
::bodies('^(?:(?!"id").)*(?:"id"(?:(?!"id").)*){100}$')



=== TEST 11: somebody else's is not there, and Nango is not asked
--- config eval: $::Config
--- request eval
::given(\@::Others, ::by_id('github', 'c-3'),
      ::reconnect('{"integration":"slack"}'),
      ::by_id('github', 'c-9'), ::by_id('slack', 'c-1'), $::Seen)
--- more_headers eval: ::headers($::Json, $::Json, $::Json, $::Json, '')
--- error_code eval: ::codes(404, 404, 404, 404, 200)
--- response_body_like eval
::bodies(('^\{"error":\{"code":"connection_not_found",'
          . '"message":"There is no such connection"\}\}$') x 4,
         '"count":0\b')



=== TEST 12: that of another environment neither
--- http_config eval
my $rest = qq{
        api                 \$TEST_NGINX_NANGO_API;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$NangoTest::API_KEY;
        reconcile           off;
        webhook_signing_key data:$NangoTest::KEY;
};
"nango_store nango_cache;
 nango_environment prod { $rest } nango_environment dev { $rest }"
--- config
    nango_owner end_user_id $http_x_user;
    location = /webhook { nango_webhook prod; }
    location = /prod    { nango_reconnect prod; }
    location = /dev     { nango_reconnect dev; }
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}', '/dev'),
      ::reconnect('{"id":"' . ::id('prod', 'github', 'c-1') . '"}', '/dev'),
      ::reconnect('{"integration":"github"}', '/prod'))
--- more_headers eval: ::headers($::Json, $::Json, $::Json)
--- error_code eval: ::codes(404, 404, 200)



=== TEST 13: all owners must match
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_reconnect;
    }
EOF
--- request eval
::given(\@::One, (::reconnect('{"integration":"github"}')) x 3,
      ::by_id('github', 'c-1'))
--- more_headers eval
::headers("$::Json\nX-Org: acme", "$::Json\nX-Org: other", $::Json,
          "$::Json\nX-Org: other")
--- error_code eval: ::codes(200, 404, 401, 404)



=== TEST 14: a deleted one is not there
--- config eval: $::Config
--- request eval
::given(\@::Gone, ::reconnect('{"integration":"github"}'),
      ::by_id('github', 'c-1'), $::Seen)
--- more_headers eval: ::headers($::Json, $::Json, '')
--- error_code eval: ::codes(404, 404, 200)
--- response_body_like eval
::bodies('connection_not_found', 'connection_not_found', '"count":0\b')



=== TEST 15: one that Nango does not know
--- config eval: $::Config
--- init
NangoTest::sim('reset')
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}'))
--- more_headers eval: ::headers($::Json)
--- error_code eval: ::codes(502)
--- response_body_like eval: ::bodies('"nango_error"')



=== TEST 16: ids that would be other paths are only text in a body
--- config eval: $::Config
--- request eval
::given([map { ::event('creation', 'true', $_, end_user_id => '42') } '.', '..'],
      ::by_id('github', '.'), ::by_id('github', '..'), $::Seen)
--- more_headers eval: ::headers($::Json, $::Json, '')
--- response_body_like eval
::bodies('sessionToken', 'sessionToken',
    '\\\\"connection_id\\\\":\\\\"\.\\\\".*'
    . '\\\\"connection_id\\\\":\\\\"\.\.\\\\"')



=== TEST 17: an integration with a blank and a colon, an id with all there is
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"integrations":[{"id":"a b:c","provider":"github",'
    . '"auth":"OAUTH2"}],"connections":[{"integration":"a b:c",'
    . '"connection_id":"{}\\"\'\\\\|/ $=+~[]@.,;:_-"}]}')
--- config eval: $::Config
--- request eval
::given([::event('creation', 'true', '{}\\"\'\\\\|/ $=+~[]@.,;:_-',
               end_user_id => '42', integration => 'a b:c')],
      ::reconnect('{"integration":"a b:c"}'),
      ::by_id('a b:c', '{}"\'\\|/ $=+~[]@.,;:_-'), $::Seen)
--- more_headers eval: ::headers($::Json, $::Json, '')
--- response_body_like eval
::bodies('sessionToken', 'sessionToken', '"count":2\b')



=== TEST 18: nothing else in the request means anything
--- config eval: $::Config
--- request eval
::given(\@::Others, (map { ::reconnect($_) }
    '', '{}', '[]', 'null', '"x"', '{"integration":""}',
    '{"integration":"git/hub"}', '{"integration":1}', '{"id":1}',
    '{"id":"x","integration":"github"}',
    '{"integration":"github","provider_config_key":"github"}',
    '{"integration":"github","tags":{"end_user_id":"43"}}',
    '{"integration":"github","end_user_id":"43"}',
    '{"integration":"github","connection_id":"c-3"}',
    '{"connection_id":"c-3"}', '{"integrations":["github"]}',
    '{"integration":"github"} x', '{"integration":"github"', 'github'),
    $::Seen)
--- more_headers eval
::headers(($::Json) x 19, '')
--- error_code eval
::codes((400) x 19, 200)
--- response_body_like eval
::bodies(('"code":"invalid_body"') x 19, '"count":0\b')



=== TEST 19: an id of another form is nobody's
--- config eval: $::Config
--- request eval
::given(\@::One, map { ::reconnect(qq({"id":"$_"})) } '', 'c-1', '0' x 32,
      'g' x 32, '0' x 31, '0' x 33, ' ' . ::id('prod', 'github', 'c-1'),
      '\u0000', uc ::id('prod', 'github', 'c-1'))
--- more_headers eval: ::headers(($::Json) x 9)
--- error_code eval: ::codes((404) x 7, 400, 200)



=== TEST 20: other methods, types, sizes, and nobody
--- config eval: $::Config
--- request eval
['GET /reconnect', 'DELETE /reconnect',
 "POST /reconnect\n{\"integration\":\"github\"}",
 "POST /reconnect\n{\"integration\":\"" . 'x' x 9000 . '"}',
 "POST /reconnect\n{\"integration\":\"github\"}"]
--- more_headers eval
['X-User: 42', 'X-User: 42', "X-User: 42\nContent-Type: text/plain",
 $::Json, 'Content-Type: application/json']
--- error_code eval
[405, 405, 415, 413, 401]
--- raw_response_headers_like eval
['\nAllow: POST\s', '\nAllow: POST\s', '', '', '']



=== TEST 21: the same again gets the token it has, a session another one
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_reconnect;
    }
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations github;
        nango_session;
    }
EOF
--- request eval
::given(\@::Two, ::by_id('github', 'c-1'), ::by_id('github', 'c-1'),
      ::by_id('github', 'c-2'), 'POST /session', $::Seen)
--- more_headers eval: ::headers(($::Json) x 4, '')
--- response_body_like eval
::bodies(('sessionToken') x 4, '"count":3\b')



=== TEST 22: what else the configuration adds
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_integration_default github user_scopes repo;
        nango_integration_default slack user_scopes chat;
        nango_integration_docs slack https://slack.example;
        nango_integration_docs github https://github.example;
        nango_webhook_url https://hooks.example.com;
        nango_reconnect;
    }
EOF
--- request eval
::given(\@::One, ::reconnect('{"integration":"github"}'), $::Seen)
--- more_headers eval: ::headers($::Json, '')
--- response_body_like eval
::bodies('sessionToken', ::seen('"tags":{"end_user_id":"42",'
    . '"organization_id":"acme","plan":"pro"},"integrations_config_defaults":'
    . '{"github":{"user_scopes":"repo"}},"overrides":{"github":'
    . '{"docs_connect":"https://github.example"}},'
    . '"webhook_url_override":"https://hooks.example.com"'))



=== TEST 23: the session's limit is its own too
--- config eval
$::Sim . <<'EOF';
    location = /reconnect {
        nango_owner end_user_id $http_x_user;
        nango_session_reuse off;
        nango_session_limit rate=1r/m;
        nango_reconnect;
    }
EOF
--- request eval
::given(\@::One, (::reconnect('{"integration":"github"}')) x 2, $::Seen)
--- more_headers eval: ::headers($::Json, $::Json, '')
--- error_code eval: ::codes(200, 429, 200)
--- response_body_like eval: ::bodies('sessionToken', 'rate_limited', '"count":1\b')



=== TEST 24: it counts with its owner's sessions, and with nobody else's
--- config eval
$::Sim . <<'EOF';
    nango_owner end_user_id $http_x_user;
    nango_session_reuse off;
    nango_session_limit rate=1r/m;

    location = /session   { nango_session; }
    location = /reconnect { nango_reconnect; }
EOF
--- request eval
::given(\@::Others, 'POST /session', ::reconnect('{"integration":"github"}'),
        ::reconnect('{"integration":"github"}'))
--- more_headers eval
::headers(($::Json) x 2, "X-User: 43\nContent-Type: application/json")
--- error_code eval: ::codes(200, 429, 200)



=== TEST 25: it needs a store, and a key
--- http_config eval
qq{
    nango_environment prod {
        api_key data:$NangoTest::API_KEY;
        reconcile off;
    }
}
--- config
    nango_owner end_user_id $remote_user;
    location = /reconnect { nango_reconnect; }
--- must_die
--- error_log
"nango_reconnect" needs a store: add "nango_store PATH;" to the http block



=== TEST 26: the key
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:$NangoTest::KEY;
    }
}
--- config
    nango_owner end_user_id $remote_user;
    location = /reconnect { nango_reconnect; }
--- must_die
--- error_log
"nango_reconnect" needs an "api_key" in nango_environment "prod"



=== TEST 27: and an owner
--- config
    location = /reconnect { nango_reconnect; }
--- must_die
--- error_log
"nango_reconnect" needs to know who is asking
