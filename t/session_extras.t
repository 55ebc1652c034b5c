# What a session carries besides its owner and integrations:
# nango_integration_default, nango_integration_docs and nango_webhook_url.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2',
          '--integration', 'a b:c@d.e_f~g-h:github:OAUTH2');

our $Sim = <<'EOF';
    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

sub session {
    my ($lines) = @_;

    return <<"EOF" . $::Sim;
    location = /session {
        nango_owner end_user_id \$http_x_user;
        nango_session_reuse off;
        $lines
        nango_session;
    }
EOF
}

our @Steps = ('POST /session', 'GET /_sim/requests?path=/connect/sessions');
our $Json = "X-User: 42\nContent-Type: application/json";

# The part of the record that holds a body, as the simulator's JSON has it;
# what all of these begin with is left out.
sub seen {
    my ($json) = @_;

    $json = '{"tags":{"end_user_id":"42"}' . $json . '}';
    $json =~ s/([\\"])/\\$1/g;

    return quotemeta qq("body":"$json");
}

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', 'NangoTest::sim("reset")')
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: each kind of default
--- config eval
::session('nango_integrations github;
           nango_integration_default github user_scopes "repo,user";
           nango_integration_default github authorization_params.login_hint
                                     a@b.co;
           nango_integration_default github connection_config.subdomain acme;
           nango_integration_default github authorization_params.prompt x;')
--- request eval: [@::Steps]
--- more_headers eval
[$::Json, '']
--- response_body_like eval
['sessionToken',
 ::seen(',"allowed_integrations":["github"],'
      . '"integrations_config_defaults":{"github":{"user_scopes":"repo,user",'
      . '"authorization_params":{"login_hint":"a@b.co","prompt":"x"},'
      . '"connection_config":{"subdomain":"acme"}}}')]



=== TEST 2: only of integrations that the session is for
--- config eval
::session('nango_integrations github slack;
           nango_integration_default slack user_scopes s;
           nango_integration_docs slack https://docs.example.com/slack;
           nango_integration_default github user_scopes g;
           nango_integration_docs github https://docs.example.com/github;')
--- request eval
["POST /session\n{\"integration\":\"github\"}", $::Steps[1],
 "POST /session\n{\"integration\":\"slack\"}", $::Steps[1],
 'POST /session', $::Steps[1]]
--- more_headers eval
[$::Json, '', $::Json, '', $::Json, '']
--- response_body_like eval
['sessionToken',
 ::seen(',"allowed_integrations":["github"],'
      . '"integrations_config_defaults":{"github":{"user_scopes":"g"}},'
      . '"overrides":{"github":{"docs_connect":'
      . '"https://docs.example.com/github"}}'),
 'sessionToken',
 ::seen(',"allowed_integrations":["slack"],'
      . '"integrations_config_defaults":{"slack":{"user_scopes":"s"}},'
      . '"overrides":{"slack":{"docs_connect":'
      . '"https://docs.example.com/slack"}}'),
 'sessionToken',
 ::seen(',"allowed_integrations":["github","slack"],'
      . '"integrations_config_defaults":{"slack":{"user_scopes":"s"},'
      . '"github":{"user_scopes":"g"}},"overrides":{'
      . '"slack":{"docs_connect":"https://docs.example.com/slack"},'
      . '"github":{"docs_connect":"https://docs.example.com/github"}}')]



=== TEST 3: of all where the session is for any
--- config eval
::session('nango_integration_default slack user_scopes s;
           nango_integration_default github user_scopes g;')
--- request eval: [@::Steps]
--- more_headers eval
[$::Json, '']
--- response_body_like eval
['sessionToken',
 ::seen(',"integrations_config_defaults":{"slack":{"user_scopes":"s"},'
      . '"github":{"user_scopes":"g"}}')]



=== TEST 4: none at all where none applies
--- config eval
::session('nango_integrations github;
           nango_integration_default slack user_scopes s;
           nango_integration_docs slack https://docs.example.com/slack;')
--- request eval: [@::Steps]
--- more_headers eval
[$::Json, '']
--- response_body_like eval
['sessionToken', ::seen(',"allowed_integrations":["github"]')]



=== TEST 5: variables, escaped; empty ones are left out
--- config eval
::session('nango_integrations github;
           nango_integration_default github user_scopes $http_x_scopes;
           nango_integration_default github authorization_params.login_hint
                                     $http_x_mail;
           nango_integration_docs github $http_x_docs;
           nango_webhook_url $http_x_hook;')
--- request eval: [@::Steps]
--- more_headers eval
["$::Json\n" . qq(X-Mail: a"b\\c\x{c3}\x{bc}</script>), '']
--- response_body_like eval
['sessionToken',
 ::seen(',"allowed_integrations":["github"],'
      . '"integrations_config_defaults":{"github":{"authorization_params":'
      . qq({"login_hint":"a\\"b\\\\c\x{c3}\x{bc}</script>"}}}))]



=== TEST 6: nothing breaks out of a value
--- config eval
::session('nango_integrations github;
           nango_integration_default github connection_config.subdomain
                                     $http_x_tenant;')
--- request eval: [@::Steps]
--- more_headers eval
["$::Json\n" . 'X-Tenant: x"},"tags":{"end_user_id":"1', '']
--- response_body_like eval
['sessionToken',
 ::seen(',"allowed_integrations":["github"],"integrations_config_defaults":'
      . '{"github":{"connection_config":{"subdomain":'
      . '"x\\"},\\"tags\\":{\\"end_user_id\\":\\"1"}}}')]



=== TEST 7: what is no text is left out with a warning
--- config eval
::session('nango_integrations github;
           nango_integration_default github user_scopes $http_x_scopes;
           nango_integration_docs github $http_x_docs;
           nango_webhook_url $http_x_hook;')
--- request eval: [@::Steps]
--- more_headers eval
["$::Json\nX-Scopes: a\x{ff}b\nX-Docs: https://a\x{fe}\nX-Hook: http://\x{ff}",
 '']
--- response_body_like eval
['sessionToken', ::seen(',"allowed_integrations":["github"]')]
--- no_error_log
[alert]
[error]



=== TEST 8: the warning
--- config eval
::session('nango_integrations github;
           nango_integration_default github user_scopes $http_x_scopes;')
--- request
POST /session
--- more_headers eval
"X-User: 42\nX-Scopes: a\x{ff}b"
--- error_log
a value for integration "github" is left out: it is no UTF-8 or has control characters



=== TEST 9: nor is what is no URL sent as one
--- config eval
::session('nango_integrations github;
           nango_integration_docs github $http_x_docs;
           nango_webhook_url $http_x_hook;')
--- request eval
[@::Steps, @::Steps, @::Steps]
--- more_headers eval
["$::Json\nX-Docs: javascript:alert(1)\nX-Hook: hooks.example.com", '',
 "$::Json\nX-Docs: https://\nX-Hook: http://", '',
 "$::Json\nX-Docs: HTTPS://a.example", '']
--- response_body_like eval
[('sessionToken', ::seen(',"allowed_integrations":["github"]')) x 3]
--- no_error_log
[alert]
[error]



=== TEST 10: ids with all that Nango allows in them
--- config eval
::session('nango_integrations "a b:c@d.e_f~g-h";
           nango_integration_default "a b:c@d.e_f~g-h" user_scopes s;
           nango_integration_docs "a b:c@d.e_f~g-h" https://x.example;')
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"integrations":[{"id":"a b:c@d.e_f~g-h",'
    . '"provider":"github","auth":"OAUTH2"}]}')
--- request eval: [@::Steps]
--- more_headers eval
[$::Json, '']
--- response_body_like eval
['sessionToken',
 ::seen(',"allowed_integrations":["a b:c@d.e_f~g-h"],'
      . '"integrations_config_defaults":{"a b:c@d.e_f~g-h":'
      . '{"user_scopes":"s"}},"overrides":{"a b:c@d.e_f~g-h":'
      . '{"docs_connect":"https://x.example"}}')]



=== TEST 11: the later of two alike counts, unless it is empty
--- config eval
::session('nango_integrations github;
           nango_integration_default github user_scopes first;
           nango_integration_default github user_scopes second;
           nango_integration_default github user_scopes $http_x_scopes;')
--- request eval: [@::Steps, @::Steps]
--- more_headers eval
[$::Json, '', "$::Json\nX-Scopes: third", '']
--- response_body_like eval
['sessionToken', ::seen(',"allowed_integrations":["github"],'
    . '"integrations_config_defaults":{"github":{"user_scopes":"second"}}'),
 'sessionToken', ::seen(',"allowed_integrations":["github"],'
    . '"integrations_config_defaults":{"github":{"user_scopes":"third"}}')]



=== TEST 12: names with dots in them, and in other letters
--- config eval
::session('nango_integrations github;
           nango_integration_default github connection_config.a.b x;
           nango_integration_default github connection_config.ü y;')
--- request eval: [@::Steps]
--- more_headers eval
[$::Json, '']
--- response_body_like eval
['sessionToken', ::seen(',"allowed_integrations":["github"],'
    . '"integrations_config_defaults":{"github":{"connection_config":'
    . qq({"a.b":"x","\x{c3}\x{bc}":"y"}}}))]



=== TEST 13: where webhooks go
--- config eval
::session('nango_webhook_url https://hooks.example.com/$http_x_tenant;')
--- request eval: [@::Steps]
--- more_headers eval
["$::Json\nX-Tenant: acme", '']
--- response_body_like eval
['sessionToken',
 ::seen(',"webhook_url_override":"https://hooks.example.com/acme"')]



=== TEST 14: another token where anything of it differs
--- config eval
<<'EOF' . $::Sim;
    location = /session {
        nango_owner end_user_id $http_x_user;
        nango_integrations github;
        nango_integration_default github user_scopes $http_x_scopes;
        nango_integration_docs github $http_x_docs;
        nango_webhook_url $http_x_hook;
        nango_session;
    }
EOF
--- request eval
[('POST /session') x 6, 'GET /_sim/requests']
--- more_headers eval
['X-User: 42', 'X-User: 42', "X-User: 42\nX-Scopes: a",
 "X-User: 42\nX-Docs: https://a.example",
 "X-User: 42\nX-Hook: https://a.example", "X-User: 42\nX-Scopes: a", '']
--- response_body_like eval
[('sessionToken') x 6, '"count":4\b']



=== TEST 15: inherited, and replaced by kind
--- config eval
<<'EOF' . $::Sim;
    nango_owner end_user_id $http_x_user;
    nango_integrations github;
    nango_session_reuse off;
    nango_integration_default github user_scopes above;
    nango_integration_docs github https://above.example;
    nango_webhook_url https://hook-above.example;

    location = /session { nango_session; }
    location = /own {
        nango_integration_default github authorization_params.a own;
        nango_webhook_url "";
        nango_session;
    }
EOF
--- request eval
[@::Steps, 'POST /own', $::Steps[1]]
--- more_headers eval
[$::Json, '', $::Json, '']
--- response_body_like eval
['sessionToken', ::seen(',"allowed_integrations":["github"],'
    . '"integrations_config_defaults":{"github":{"user_scopes":"above"}},'
    . '"overrides":{"github":{"docs_connect":"https://above.example"}},'
    . '"webhook_url_override":"https://hook-above.example"'),
 'sessionToken', ::seen(',"allowed_integrations":["github"],'
    . '"integrations_config_defaults":{"github":{"authorization_params":'
    . '{"a":"own"}}},'
    . '"overrides":{"github":{"docs_connect":"https://above.example"}}')]



=== TEST 16: an integration that is none
--- config
    nango_integration_default git/hub user_scopes x;
--- must_die
--- error_log
invalid integration "git/hub"; an id has 1 to 255 letters, digits, spaces and "~:.@_-"



=== TEST 17: nor is this one
--- config
    nango_integration_docs "" https://docs.example.com;
--- must_die
--- error_log
invalid integration "";



=== TEST 18: a key that there is not
--- config
    nango_integration_default github scopes x;
--- must_die
--- error_log
invalid key "scopes"; there are "user_scopes", "authorization_params.NAME" and "connection_config.NAME"



=== TEST 19: a key that takes no name
--- config
    nango_integration_default github user_scopes.x y;
--- must_die
--- error_log
invalid key "user_scopes.x"



=== TEST 20: keys that need one
--- config
    nango_integration_default github connection_config x;
--- must_die
--- error_log
invalid key "connection_config"



=== TEST 21: an empty one
--- config
    nango_integration_default github authorization_params. x;
--- must_die
--- error_log
invalid key "authorization_params."



=== TEST 22: one that is no text
--- config eval
"    nango_integration_default github authorization_params.a\x{ff} x;"
--- must_die
--- error_log
invalid key "authorization_params.a



=== TEST 23: a variable that there is not
--- config
    nango_integration_default github user_scopes $nobody_has_it;
--- must_die
--- error_log
unknown "nobody_has_it" variable



=== TEST 24: a URL that is none
--- config
    nango_webhook_url hooks.example.com;
--- must_die
--- error_log
invalid URL "hooks.example.com"; it must begin with "https://" or "http://"



=== TEST 25: two of them
--- config
    nango_webhook_url https://a.example;
    nango_webhook_url https://b.example;
--- must_die
--- error_log
"nango_webhook_url" directive is duplicate



=== TEST 26: documentation that is no URL
--- config
    nango_integration_docs github docs.example.com;
--- must_die
--- error_log
invalid URL "docs.example.com"
