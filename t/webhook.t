# nango_webhook: what is accepted, what is refused, and what each leaves.

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

our $Created = event('creation', 'true', 'c-1', end_user_id => '42');
our $Other = event('creation', 'true', 'c-2', end_user_id => '42');
our $Ping = '{"from":"github","type":"forward","payload":{"zen":"x"}}';

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a signed webhook is stored, and is there for its owner
--- config eval: $::Config
--- request eval
[webhook($::Created), 'GET /connections']
--- more_headers eval
[signature($::Created), 'X-User: 42']
--- response_body_like eval
['^\{"ack":true,"sequence":1\}$',
 '"connection_id":"c-1".*"sequence":1']
--- error_code eval
[200, 200]



=== TEST 2: and for nobody else
--- config eval: $::Config
--- request eval
[webhook($::Created), 'GET /connections']
--- more_headers eval
[signature($::Created), 'X-User: 43']
--- response_body_like eval
['^\{"ack":true', '^\{"connections":\[\],']



=== TEST 3: its answer is JSON that nobody stores
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- response_headers
Content-Type: application/json; charset=utf-8
Cache-Control: no-store
! X-Nango-Error



=== TEST 4: the signature's hex may be of either case
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
'X-NANGO-HMAC-SHA256: ' . uc hmac($::Created)
--- response_body_like: "ack":true



=== TEST 5: without a signature it is 401 before the body is read
--- config
    lingering_timeout 100ms;
    location = /webhook { nango_webhook; }
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
. "Connection: close\r\n\r\n"
--- error_code: 401
--- response_headers
X-Nango-Error: invalid_signature
--- response_body chomp
{"error":{"code":"invalid_signature","message":"The webhook's signature is missing or malformed"}}
--- error_log
a webhook has no X-Nango-Hmac-Sha256 header



=== TEST 6: a signature of 63 digits
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
'X-Nango-Hmac-Sha256: ' . substr hmac($::Created), 1
--- error_code: 401
--- error_log
a webhook has a malformed X-Nango-Hmac-Sha256 header



=== TEST 7: a signature with something that is no hex digit
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
'X-Nango-Hmac-Sha256: g' . substr hmac($::Created), 1
--- error_code: 401
--- error_log
a malformed X-Nango-Hmac-Sha256



=== TEST 8: two signatures, of which one is right
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created) . "\n" . signature('x')
--- error_code: 401
--- error_log
a webhook has several X-Nango-Hmac-Sha256 headers



=== TEST 9: X-Nango-Signature is open to length extension and counts nothing
--- config eval: $::Config
--- request eval
webhook(capture_body('apikey-creation'))
--- more_headers
X-Nango-Signature: 6f36dc2142f1443b3846e3975848d0ac35f2b8633627394dd47f42590ee2a337
--- error_code: 401
--- error_log
a webhook has no X-Nango-Hmac-Sha256 header



=== TEST 10: one flipped byte of the body: 401, and nothing is left of it
--- config eval: $::Config
--- request eval
(my $body = $::Created) =~ s/c-1/c-3/;
[webhook($body), 'GET /connections']
--- more_headers eval
[signature($::Created), 'X-User: 42']
--- error_code eval
[401, 200]
--- response_body_like eval
['invalid_signature', '^\{"connections":\[\],"sequence":0,']
--- error_log
a webhook's signature does not verify



=== TEST 11: one flipped byte of the signature
--- config eval: $::Config
--- request eval
[webhook($::Created), 'GET /connections']
--- more_headers eval
my $mac = hmac($::Created);
substr($mac, 63, 1) = substr($mac, 63, 1) eq '0' ? '1' : '0';
["X-Nango-Hmac-Sha256: $mac", 'X-User: 42']
--- error_code eval
[401, 200]
--- response_body_like eval
['invalid_signature', '^\{"connections":\[\],"sequence":0,']
--- error_log
a webhook's signature does not verify



=== TEST 12: one flipped byte of the key
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
(my $key = $NangoTest::KEY) =~ s/4$/5/;
signature($::Created, $key)
--- error_code: 401
--- error_log
its signing key is not in webhook_signing_key



=== TEST 13: any of several keys will do
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:first data:$NangoTest::KEY;
        webhook_signing_key data:third;
    }
}
--- config
    location = /webhook { nango_webhook; }
--- request eval
[webhook($::Created), webhook($::Other), webhook($::Ping)]
--- more_headers eval
[signature($::Created, 'first'), signature($::Other),
 signature($::Ping, 'third')]
--- error_code eval
[200, 200, 200]



=== TEST 14: keys from a file, one a line, as editors leave it
--- user_files eval
[['keys', "\x{ef}\x{bb}\x{bf}old\r\n\r\n  $NangoTest::KEY  \r\n"]]
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key file:../html/keys;
    }
--- config
    location = /webhook { nango_webhook; }
--- request eval
[webhook($::Created), webhook($::Other)]
--- more_headers eval
[signature($::Created, 'old'), signature($::Other)]
--- error_code eval
[200, 200]



=== TEST 15: a repeat is told, and has the first one's sequence
--- config eval: $::Config
--- request eval
[webhook($::Created), webhook($::Other), webhook($::Created)]
--- more_headers eval
[signature($::Created), signature($::Other), signature($::Created)]
--- response_body eval
['{"ack":true,"sequence":1}', '{"ack":true,"sequence":2}',
 '{"ack":true,"sequence":1,"duplicate":true}']



=== TEST 16: identical forwards are separate events
--- config eval: $::Config
--- request eval
[webhook($::Ping), webhook($::Ping)]
--- more_headers eval
[signature($::Ping), signature($::Ping)]
--- response_body eval
['{"ack":true,"sequence":1}', '{"ack":true,"sequence":2}']



=== TEST 17: a repeat after dedupe is an event of its own
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:$NangoTest::KEY;
        dedupe 1ms;
    }
}
--- config
    location = /webhook { nango_webhook; }
--- request eval
[webhook($::Created), webhook($::Ping), webhook($::Created)]
--- more_headers eval
[signature($::Created), signature($::Ping), signature($::Created)]
--- response_body_like eval
['"sequence":1\}', '"sequence":2\}', '"sequence":3\}']



=== TEST 18: what is no JSON, null, and nothing at all are events
--- config eval: $::Config
--- request eval
[webhook('not json'), webhook('null'), webhook('[1')]
--- more_headers eval
[signature('not json'), signature('null'), signature('[1')]
--- error_code eval
[200, 200, 200]
--- response_body_like eval
['"sequence":1', '"sequence":2', '"sequence":3']



=== TEST 19: an empty body
--- config eval: $::Config
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
. signature('') . "\r\nConnection: close\r\n\r\n"
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 20: any content type
--- config eval: $::Config
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created) . "\nContent-Type: text/plain"
--- error_code: 200



=== TEST 21: a chunked body
--- config eval: $::Config
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
. signature($::Created) . "\r\nConnection: close\r\n\r\n"
. CORE::join('', map { sprintf "%x\r\n%s\r\n", length $_, $_ }
           $::Created =~ /(.{1,50})/sg)
. "0\r\n\r\n"
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 22: 128 KB stay in the record
--- config eval: $::Config
--- request eval
webhook('x' x 131072)
--- more_headers eval
signature('x' x 131072)
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 23: one more is a file
--- config eval: $::Config
--- request eval
webhook('x' x 131073)
--- more_headers eval
signature('x' x 131073)
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 24: a large event with a wrong signature
--- config eval: $::Config
--- request eval
webhook('x' x 300000)
--- more_headers eval
signature('x' x 300001)
--- error_code: 401
--- response_headers
X-Nango-Error: invalid_signature
--- error_log
a webhook's signature does not verify



=== TEST 25: a large auth event is understood
--- config eval
$::Config
--- request eval
$::large = event('creation', 'true', 'c-9', end_user_id => '42');
$::large =~ s/^\{/'{"padding":"' . 'x' x 300000 . '",'/e;
[webhook($::large), 'GET /connections']
--- more_headers eval
[signature($::large), 'X-User: 42']
--- response_body_like eval
['"sequence":1', '"connection_id":"c-9"']



=== TEST 26: larger than max_body
--- config
    location = /webhook { nango_webhook max_body=1k; }
--- request eval
webhook('x' x 1025)
--- more_headers eval
signature('x' x 1025)
--- error_code: 413
--- response_headers
X-Nango-Error: body_too_large
--- error_log
a webhook of 1025 bytes is larger than max_body



=== TEST 27: max_body owns the limit, whatever client_max_body_size says
--- config
    location = /webhook { client_max_body_size 1k; nango_webhook; }
--- request eval
webhook('x' x 5000)
--- more_headers eval
signature('x' x 5000)
--- error_code: 200



=== TEST 28: a chunked body larger than max_body
--- config
    location = /webhook { nango_webhook max_body=1k; }
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
. signature('x' x 2000) . "\r\nConnection: close\r\n\r\n"
. "7d0\r\n" . 'x' x 2000 . "\r\n0\r\n\r\n"
--- error_code: 413
--- error_log
is larger than max_body



=== TEST 29: other methods
--- config eval: $::Config
--- request
GET /webhook
--- error_code: 405
--- response_headers
Allow: POST
X-Nango-Error: method_not_allowed



=== TEST 30: error_page makes nothing else of a 503
--- http_config eval
qq{
    nango_store nango_cache/not/there;
    nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }
    error_page 401 403 413 500 502 503 504 =302 http://example.com/;
}
--- config
    location = /webhook { nango_webhook max_body=1k; }
--- must_die
--- error_log
nango_cache/not/there" failed



=== TEST 31: error_page makes nothing else of a 401
--- config
    error_page 401 413 503 =302 http://example.com/;
    location = /webhook { nango_webhook; }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Other)
--- error_code: 401
--- response_headers
! Location
--- error_log
does not verify



=== TEST 32: behind limit_except
--- config
    location = /webhook {
        nango_webhook;
        limit_except GET { allow all; }
    }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 33: inside if
--- config
    location = /webhook {
        if ($http_x_nango_hmac_sha256) { nango_webhook; }
    }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- response_body chomp
{"ack":true,"sequence":1}



=== TEST 34: an answer by somebody else is reported as lost
--- config
    location = /webhook {
        nango_webhook;
        return 301 http://example.com/;
    }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- error_code: 301
--- error_log
a webhook was answered 301 by another directive than nango_webhook; Nango will not send it again, client:



=== TEST 35: so is one that auth_request refuses
--- config
    location = /auth { return 403; }
    location = /webhook {
        auth_request /auth;
        nango_webhook;
    }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- error_code: 403
--- error_log
a webhook was answered 403 by another directive



=== TEST 36: what others say with 5xx is sent again, and is not lost
--- config
    location = /webhook {
        nango_webhook;
        return 503;
    }
--- request eval
webhook($::Created)
--- more_headers eval
signature($::Created)
--- error_code: 503
--- no_error_log
by another directive



=== TEST 37: the log variables
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }
    log_format nango '\$nango_result \$nango_event_type '
                     '\$nango_event_operation \$nango_event_sequence '
                     '\$nango_api_status \$nango_api_time '
                     '\$nango_commit_time';
}
--- config
    location = /webhook {
        access_log html/nango.log nango;
        nango_webhook;
    }
    location = /log { alias html/nango.log; }
--- request eval
[webhook($::Created), webhook($::Created), webhook($::Ping), 'GET /log']
--- more_headers eval
[signature($::Created), signature($::Created), signature(''), '']
--- error_code eval
[200, 200, 401, 200]
--- response_body_like eval
['', '', '', '^stored auth creation 1 - - 0\.\d{6}\n'
             . 'duplicate auth creation 1 - - 0\.\d{6}\n'
             . 'invalid_signature - - - - - -\n$']



=== TEST 38: pipelined webhooks are answered one after the other
--- config eval: $::Config
--- pipelined_requests eval
[webhook($::Created), webhook($::Other)]
--- more_headers eval
[signature($::Created), signature($::Other)]
--- response_body eval
['{"ack":true,"sequence":1}', '{"ack":true,"sequence":2}']



=== TEST 39: max_body twice
--- config
    location = /webhook { nango_webhook max_body=1m max_body=2m; }
--- must_die
--- error_log
"max_body=2m" is given twice
