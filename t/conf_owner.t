# nango_owner, nango_tag, nango_integrations and the content directives: what
# nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a browser-facing endpoint without an owner
--- config
    location = /session { nango_session; }
--- must_die
--- error_log eval
qr/"nango_session" needs to know who is asking: add, for instance, "nango_owner end_user_id \$remote_user;" in .*nginx\.conf:\d+/



=== TEST 2: an argument is nobody's identity
--- config
    nango_owner end_user_id $arg_user;
--- must_die
--- error_log
"$arg_user" in nango_owner: whoever sends the request could be anybody



=== TEST 3: nor is a cookie, in braces and beside other text
--- config
    nango_owner end_user_id "u-${cookie_user}";
--- must_die
--- error_log
"$cookie_user" in nango_owner



=== TEST 4: nor the body
--- config
    nango_owner end_user_id $request_body;
--- must_die
--- error_log
"$request_body" in nango_owner



=== TEST 5: nor the body's file
--- config
    nango_owner end_user_id $request_body_file;
--- must_die
--- error_log
"$request_body_file" in nango_owner



=== TEST 6: a header is warned of
--- config
    nango_owner end_user_id $http_x_user;
--- error_log
"$http_x_user" in nango_owner is safe only if a proxy in front sets



=== TEST 7: one owner for everybody is warned of
--- config
    nango_owner end_user_id everyone;
--- error_log
nango_owner "end_user_id" is the same for everybody



=== TEST 8: a tag's name that Nango refuses
--- config
    nango_owner 1user $remote_user;
--- must_die
--- error_log
invalid name "1user" of a tag: it



=== TEST 9: the same owner twice, whatever the case
--- config
    nango_owner end_user_id $remote_user;
    nango_owner End_User_ID $remote_user;
--- must_die
--- error_log
the tag "end_user_id" is given twice



=== TEST 10: a fixed value that Nango refuses
--- config
    nango_tag end_user_email nobody;
--- must_die
--- error_log
invalid value of the tag "end_user_email": it



=== TEST 11: a tag that is an owner
--- config
    nango_tag end_user_id x;
    location = /session {
        nango_owner end_user_id $remote_user;
        nango_session;
    }
--- must_die
--- error_log
"end_user_id" is a nango_tag and a nango_owner of the same location



=== TEST 12: more tags than Nango takes
--- config
    nango_tag a 1; nango_tag b 1; nango_tag c 1; nango_tag d 1;
    nango_tag e 1; nango_tag f 1; nango_tag g 1; nango_tag h 1;
    nango_tag i 1; nango_tag j 1; nango_tag k 1;
--- must_die
--- error_log
more than 10 tags, which Nango refuses



=== TEST 13: more owners and tags than Nango takes
--- config
    nango_tag a 1; nango_tag b 1; nango_tag c 1; nango_tag d 1;
    nango_tag e 1; nango_tag f 1; nango_tag g 1; nango_tag h 1;
    nango_tag i 1; nango_tag j 1;
    location = /session {
        nango_owner end_user_id $remote_user;
        nango_session;
    }
--- must_die
--- error_log
more than 10 owners and tags, which Nango refuses



=== TEST 14: an integration's id that Nango refuses
--- config
    nango_integrations git/hub;
--- must_die
--- error_log
invalid integration "git/hub"



=== TEST 15: two endpoints in one location
--- config
    location = /x {
        nango_owner end_user_id $remote_user;
        nango_session;
        nango_connections;
    }
--- must_die
--- error_log
"nango_connections" in a location that has "nango_session" already



=== TEST 16: an endpoint in a location with other content
--- config
    location = /x {
        empty_gif;
        nango_oauth_callback;
    }
--- must_die
--- error_log
"nango_oauth_callback" in a location whose content comes from another directive



=== TEST 17: other content in a location with an endpoint
--- config
    location = /x {
        nango_oauth_callback;
        empty_gif;
    }
--- must_die
--- error_log
another directive takes the place of "nango_oauth_callback"



=== TEST 18: a token cannot be reused until it ends
--- config
    nango_session_reuse 30m;
--- must_die
--- error_log
reuse it for 20m at most



=== TEST 19: an unknown field to expose
--- config
    nango_expose secrets;
--- must_die
--- error_log
invalid value "secrets"



=== TEST 20: an unknown parameter of nango_webhook
--- config
    location = /webhook { nango_webhook prod max=1m; }
--- must_die
--- error_log
invalid parameter "max=1m"; there are an environment's name and "max_body="



=== TEST 21: a size that is none
--- config
    location = /webhook { nango_webhook max_body=big; }
--- must_die
--- error_log
invalid size "big"; write it as "max_body=75m"



=== TEST 22: content directives stand in locations only
--- config
    nango_session;
--- must_die
--- error_log
"nango_session" directive is not allowed here



=== TEST 23: nor are all arguments together
--- config
    nango_owner end_user_id $args;
--- must_die
--- error_log
"$args" in nango_owner: whoever sends the request could be anybody



=== TEST 24: what comes from the URI is warned of
--- config
    location ~ ^/of/(.+)/session$ {
        nango_owner end_user_id $1;
        nango_session;
    }
--- error_log
"$1" in nango_owner comes from the URI that the client has sent



=== TEST 25: $remote_user that nobody has checked is warned of
--- config
    location = /session {
        nango_owner end_user_id $remote_user;
        nango_session;
    }
--- error_log
"$remote_user" in nango_owner is what the client claims to be: there is no auth_basic here for "nango_session" in



=== TEST 26: and not behind auth_basic of the server
--- config
    auth_basic app;
    auth_basic_user_file /dev/null;
    location = /session {
        nango_owner end_user_id $remote_user;
        nango_session;
    }
    location = /nothing { auth_basic off; return 404; }
--- no_error_log
is what the client claims to be



=== TEST 27: so is what the client says of the host that it wants
--- config
    location = /session {
        nango_owner organization_id $host;
        nango_owner end_user_id $ssl_server_name;
        nango_session;
    }
--- error_log
"$host" in nango_owner comes from the URI that the client has sent
"$ssl_server_name" in nango_owner comes from the URI that the client has sent



=== TEST 28: a size that no disk has
--- config
    location = /webhook { nango_webhook max_body=1025g; }
--- must_die
--- error_log
invalid size "1025g"; write it as "max_body=75m", 1k to 1024g
