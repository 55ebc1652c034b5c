# nango_status manage: what is asked and refused. What the acts do is in
# t/e2e/status.test.js.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Http = <<"EOF";
    nango_store nango_cache;

    nango_environment prod {
        webhook_signing_key data:$KEY;
        deliver app http://127.0.0.1:1/;
    }
EOF

our $Config = <<'EOF';
    location = /manage { nango_status manage; }

    location = /ask {
        nango_status manage;
        limit_except GET { deny all; }
    }
EOF

our $Json = 'Content-Type: application/json';

sub act { return "POST /manage\n$_[0]" }

our @Bad = ('', '[]', '{', '{}', '{"action":"forget"}', '{"subscriber":"x"}',
            '{"action":"drop","subscriber":"x"}',
            '{"action":1,"subscriber":"x"}',
            '{"action":"forget","subscriber":null}',
            '{"action":"forget","subscriber":"x","force":true}',
            '{"action":"redeliver","subscriber":"x","sequence":"1"}',
            '{"action":"redeliver","subscriber":"x","sequence":0}',
            '{"action":"redeliver","subscriber":"x","sequence":-1}',
            '{"action":"redeliver","subscriber":"x","sequence":1.5}',
            '{"action":"redeliver","subscriber":"x",'
            . '"sequence":99999999999999999999}',
            '{"action":"resume","subscriber":"x","sequence":1}',
            '{"action":"resume","subscriber":"x","environment":7}');

our @Queries = ('dead=1', 'waiting=1', 'dead=1&subscriber=x&after=one',
                'dead=1&subscriber=x&limit=0', 'dead=1&subscriber=x&limit=1001',
                'dead=1&subscriber=x&after=99999999999999999999');

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: the counts are there too
--- http_config eval: $::Http
--- config eval: $::Config
--- request
GET /manage
--- response_body_like chomp
^\{"version":.*"subscribers":\[\{"environment":"prod","name":"app",
--- error_code: 200



=== TEST 2: bodies that are refused
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
[map { ::act($_) } @::Bad]
--- more_headers eval
[($::Json) x @::Bad]
--- error_code eval
[(400) x @::Bad]
--- response_headers eval
[('X-Nango-Error: invalid_body') x @::Bad]



=== TEST 3: queries that are refused
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
[map { "GET /manage?$_" } @::Queries]
--- error_code eval
[(400) x @::Queries]
--- response_headers eval
[('X-Nango-Error: invalid_body') x @::Queries]



=== TEST 4: a subscriber that the store does not know
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
['GET /manage?dead=1&subscriber=other',
 'GET /manage?waiting=1&subscriber=app&environment=other',
 ::act('{"action":"redeliver","subscriber":"other"}'),
 ::act('{"action":"redeliver","subscriber":"other","sequence":1}'),
 ::act('{"action":"resume","subscriber":"other"}'),
 ::act('{"action":"forget","subscriber":"other"}'),
 ::act('{"action":"forget","subscriber":"app","environment":"other"}')]
--- more_headers eval
[($::Json) x 7]
--- error_code eval
[(404) x 7]
--- response_headers eval
[('X-Nango-Error: subscriber_not_found') x 7]



=== TEST 5: one that is in the configuration is not forgotten
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
[::act('{"action":"forget","subscriber":"app"}'),
 ::act('{"action":"forget","subscriber":"app","environment":"prod"}')]
--- more_headers eval
[($::Json) x 2]
--- error_code eval
[409, 409]
--- response_headers eval
[('X-Nango-Error: subscriber_configured') x 2]



=== TEST 6: JSON only
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
::act('{"action":"resume","subscriber":"other"}')
--- more_headers
Content-Type: text/plain
--- error_code: 415
--- response_headers
X-Nango-Error: unsupported_media_type



=== TEST 7: and not much of it
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
::act('{"action":"resume","subscriber":"' . 'x' x 9000 . '"}')
--- more_headers
Content-Type: application/json
--- error_code: 413



=== TEST 8: pages of other origins do not act
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
[(::act('{"action":"resume","subscriber":"other"}')) x 3]
--- more_headers eval
["$::Json\nOrigin: https://evil.example.com", "$::Json\nOrigin: null",
 "$::Json\nSec-Fetch-Site: cross-site"]
--- error_code eval
[403, 403, 403]
--- response_headers eval
[('X-Nango-Error: origin_not_allowed') x 3]



=== TEST 9: its own do
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
::act('{"action":"resume","subscriber":"other"}')
--- more_headers eval
"$::Json\nHost: app.example.com\nOrigin: https://app.example.com"
--- error_code: 404
--- response_headers
X-Nango-Error: subscriber_not_found



=== TEST 10: a link from anywhere leads to the page
--- http_config eval: $::Http
--- config eval: $::Config
--- request
GET /manage?format=html
--- more_headers
Sec-Fetch-Site: cross-site
--- response_body_like chomp
^<!DOCTYPE html>
--- error_code: 200



=== TEST 11: other methods
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
['DELETE /manage', "PUT /manage\n{}"]
--- error_code eval
[405, 405]
--- response_headers eval
[('Allow: GET, HEAD, POST') x 2]



=== TEST 12: who may look and not act
--- http_config eval: $::Http
--- config eval: $::Config
--- request eval
['GET /ask', "POST /ask\n" . '{"action":"resume","subscriber":"other"}']
--- more_headers eval
[($::Json) x 2]
--- error_code eval
[200, 403]



=== TEST 13: without a store
--- http_config eval
"nango_environment prod { webhook_signing_key data:$KEY; }"
--- config eval: $::Config
--- request eval
['GET /manage', 'GET /manage?dead=1&subscriber=app',
 ::act('{"action":"resume","subscriber":"app"}')]
--- more_headers eval
[($::Json) x 3]
--- error_code eval
[200, 503, 503]



=== TEST 14: with neither store nor environment pages of others do not act
--- http_config
    server_tokens off;
--- config eval: $::Config
--- request eval
::act('{"action":"resume","subscriber":"app"}')
--- more_headers eval
"$::Json\nOrigin: null"
--- error_code: 403
