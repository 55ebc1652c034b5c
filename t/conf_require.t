# nango_require and nango_catalog: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

# An environment that has no key for the API.
our $Keyless = <<"EOF";
    nango_store nango_cache;

    nango_environment prod {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        webhook_signing_key data:$NangoTest::KEY;
    }
EOF

our $Twins = <<"EOF";
    nango_store nango_cache;
    nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }
    nango_environment dev  { webhook_signing_key data:$NangoTest::KEY; }
EOF

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: no owner
--- config
    location / { nango_require github; }
--- must_die
--- error_log eval
qr/"nango_require" needs to know who is asking: add, for instance, "nango_owner end_user_id \$remote_user;" in .*nginx\.conf:\d+/



=== TEST 2: no store
--- http_config eval
"nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }"
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github; }
--- must_die
--- error_log
"nango_require" needs a store: add "nango_store PATH;" to the http block



=== TEST 3: no environment
--- http_config
nango_store nango_cache;
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github; }
--- must_die
--- error_log
nango_environment



=== TEST 4: one that is not there
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require dev github; }
--- must_die
--- error_log
"dev"



=== TEST 5: which of two
--- http_config eval: $::Twins
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github; }
--- must_die
--- error_log
nango_require



=== TEST 6: no integration
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require optional; }
--- must_die
--- error_log
"nango_require" directive needs the id of an integration



=== TEST 7: one that cannot be
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require a/b; }
--- must_die
--- error_log
invalid integration "a/b"; an id has 1 to 255 letters, digits, spaces and



=== TEST 8: an empty one
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require ""; }
--- must_die
--- error_log
invalid integration ""



=== TEST 9: a parameter that is none
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github multiple=all; }
--- must_die
--- error_log
invalid parameter "multiple=all"; there are "id=", "multiple=newest"



=== TEST 10: three names
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require prod github slack; }
--- must_die
--- error_log
invalid parameter "slack"



=== TEST 11: twice
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github; nango_require slack; }
--- must_die
--- error_log
"nango_require" directive is duplicate



=== TEST 12: an unknown variable
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github id=$nothing_of_this; }
--- must_die



=== TEST 13: outside of a location
--- config
    nango_require github;
--- must_die
--- error_log
"nango_require" directive is not allowed here



=== TEST 14: a proxy without a connection
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github proxy optional; }
--- must_die
--- error_log
"nango_require" with "proxy" cannot be "optional"



=== TEST 15: a proxy without a key
--- http_config eval: $::Keyless
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github proxy; }
--- must_die
--- error_log
"nango_require" needs an "api_key" in nango_environment "prod" for "proxy"



=== TEST 16: credentials without a key
--- http_config eval: $::Keyless
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github credentials; }
--- must_die
--- error_log
"nango_require" needs an "api_key" in nango_environment "prod" for "credentials"



=== TEST 17: without either no key is needed
--- http_config eval: $::Keyless
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x { nango_require github id=$arg_id multiple=refuse; }
--- no_error_log
[emerg]



=== TEST 18: "return" answers before any check
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x { nango_require github; return 200; }
--- error_log
"nango_require" does not guard what "return" answers here



=== TEST 19: one behind a condition, and after a "set"
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x {
        nango_require github;
        set $a "b$uri";
        if ($a) { return 403; }
    }
--- error_log
"nango_require" does not guard what "return" answers here



=== TEST 20: no warning where nothing returns
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x { nango_require github; set $a "b$uri"; rewrite ^/x /y break; }
--- no_error_log
does not guard
[emerg]



=== TEST 21: a user that nobody has checked
--- config
    nango_owner end_user_id $remote_user;
    location /x { nango_require github; }
--- error_log
"$remote_user" in nango_owner is what the client claims to be: there is no auth_basic here for "nango_require"



=== TEST 22: a catalogue without an owner
--- config
    location = /catalog { nango_catalog; }
--- must_die
--- error_log
"nango_catalog" needs to know who is asking



=== TEST 23: a catalogue without a key
--- http_config eval: $::Keyless
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location = /catalog { nango_catalog; }
--- must_die
--- error_log
"api_key"



=== TEST 24: a catalogue and something else
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location = /catalog { nango_catalog; nango_connections; }
--- must_die
--- error_log
nango_connections



=== TEST 25: two ids
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github id=$arg_a id=$arg_b; }
--- must_die
--- error_log
"id=" is duplicate



=== TEST 26: an id that is always empty
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location / { nango_require github id=; }
--- must_die
--- error_log
"id=" needs a value



=== TEST 27: a provider that may lead into internal locations
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x {
        nango_require github proxy;
        location /x/y { proxy_pass http://127.0.0.1:1/proxy/; }
    }
--- error_log
what a provider answers can lead into internal locations: add "proxy_ignore_headers X-Accel-Redirect;"



=== TEST 28: one that may not, also below an if and limit_except
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    proxy_ignore_headers X-Accel-Redirect Vary;
    location /x {
        nango_require github proxy;
        proxy_pass http://127.0.0.1:1/proxy/;
        limit_except GET { deny all; }
        if ($arg_a) { set $b c; }
    }
--- no_error_log
can lead into internal locations
[emerg]



=== TEST 29: nor is there anything to warn of where nothing is proxied
--- config
    nango_owner end_user_id $ssl_client_s_dn;
    location /x { nango_require github proxy; }
    location /y { proxy_pass http://127.0.0.1:1/; }
    location /z { nango_require github credentials; proxy_pass http://127.0.0.1:1/; }
--- no_error_log
can lead into internal locations
[emerg]
