# Nango's own webhooks, byte for byte, and the state after each.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Config = <<'EOF';
    location = /webhook { nango_webhook; }

    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }
EOF

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a creation with an end user: valid, and all its tags
--- config eval: $::Config
--- request eval
[webhook(capture_body('apikey-creation')), 'GET /connections']
--- more_headers eval
[capture_headers('apikey-creation'), 'X-User: user-42']
--- response_body_like eval
['^\{"ack":true,"sequence":1\}$',
 '^\{"connections":\[\{"id":"[0-9a-f]{32}","integration":"test-apikey",'
 . '"provider":"airtable-pat","status":"valid",'
 . '"status_since":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ",'
 . '"checked_at":"20[^"]+Z","error":null,"owner":\{"end_user_id":"user-42"\},'
 . '"created_at":"20[^"]+Z","updated_at":"20[^"]+Z",'
 . '"connection_id":"d76189cb-fd57-4e26-9832-36fcfc1d1e3b",'
 . '"tags":\{"end_user_display_name":"Ann \xc3\x9cn\xc3\xafcode",'
 . '"end_user_email":"ann\@example\.com","end_user_id":"user-42",'
 . '"organization_display_name":"Org Seven","organization_id":"org-7",'
 . '"plan":"pro"\}\}\],"sequence":1,"log":"[0-9a-f]{32}","changed":true,'
 . '"next":null\}$']



=== TEST 2: a creation of a tags-only session
--- config eval: $::Config
--- request eval
[webhook(capture_body('tagsonly-creation')), 'GET /connections']
--- more_headers eval
[capture_headers('tagsonly-creation'), 'X-User: user-43']
--- response_body_like eval
['"sequence":1', '"connection_id":"57513627.*"team":"Blue"']



=== TEST 3: an override without tags keeps the owner
--- config eval: $::Config
--- request eval
[webhook(capture_body('apikey-creation')),
 webhook(capture_body('apikey-override-notags')), 'GET /connections']
--- more_headers eval
[capture_headers('apikey-creation'),
 capture_headers('apikey-override-notags'), 'X-User: user-42']
--- response_body_like eval
['"sequence":1', '"sequence":2',
 '"status":"valid".*"tags":\{"end_user_display_name".*"sequence":2']



=== TEST 4: a denied authorisation is no connection
--- config eval: $::Config
--- request eval
[webhook(capture_body('oauth2-denied')), 'GET /connections']
--- more_headers eval
[capture_headers('oauth2-denied'), 'X-User: user-42']
--- response_body_like eval
['"sequence":1', '^\{"connections":\[\],"sequence":1,']



=== TEST 5: a failed refresh of an unknown connection is an event only
--- config eval: $::Config
--- request eval
[webhook(capture_body('oauth2-refresh-error')), 'GET /connections']
--- more_headers eval
[capture_headers('oauth2-refresh-error'), 'X-User: user-42']
--- response_body_like eval
['"sequence":1', '^\{"connections":\[\],"sequence":1,']



=== TEST 6: of a known one it is the end of its validity, with the error
--- config eval: $::Config
--- request eval
$::created = event('creation', 'true',
                     'b4d976af-e09d-4d43-9207-51a9f386c5b6',
                     integration => 'test-oauth2', end_user_id => 'user-42');
[webhook($::created), webhook(capture_body('oauth2-refresh-error')),
 'GET /connections']
--- more_headers eval
[signature($::created), capture_headers('oauth2-refresh-error'),
 'X-User: user-42']
--- response_body_like eval
['"sequence":1', '"sequence":2',
 '"status":"invalid".*"error":\{"type":"refresh_token_external_error",'
 . '"description":"The external API returned an error']
