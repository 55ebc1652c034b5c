# nango_events: pages, filters, whose events they are, bodies, and what is
# refused.  Waiting and event streams are in t/e2e/events.test.js.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Config = <<'CONF';
    location = /webhook { nango_webhook; }

    location = /events {
        nango_owner end_user_id $http_x_user;
        nango_events;
    }

    location = /exposed {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_events;
    }

    location = /id {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id;
        nango_events;
    }

    location = /tags {
        nango_owner  end_user_id $http_x_user;
        nango_expose tags;
        nango_events;
    }

    location = /both {
        nango_owner end_user_id     $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_events;
    }

    location = /all {
        allow 127.0.0.1;
        nango_events all;
    }
CONF

our @Three = (
    event('creation', 'true', 'c-1', end_user_id => '42',
          organization_id => 'acme'),
    '{"connectionId":"c-1","from":"nango","model":"Issue",'
    . '"providerConfigKey":"github","responseResults":{"added":9007199254740993,'
    . '"updated":0},"success":true,"syncName":"issues","type":"sync"}',
    event('creation', 'true', 'c-3', end_user_id => '43',
          organization_id => 'acme'),
);

# Requests and headers: the webhooks, then what is asked.
sub ask {
    return [(map { webhook($_) } @Three), @_];
}

sub as {
    my (@headers) = @_;

    return [(map { signature($_) } @Three), @headers];
}

sub expect {
    return [('"ack":true') x @Three, @_];
}

# One body, and what "all" sees of it.
sub one {
    my ($body, @more) = @_;

    return [webhook($body), @more ? @more : 'GET /all'];
}

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: the caller's own, oldest first, and nothing that was not exposed
--- config eval: $::Config
--- request eval
::ask('GET /events')
--- more_headers eval
::as('X-User: 42')
--- response_body_like eval
my $id = ::id('prod', 'github', 'c-1');
::expect('^\{"events":\[\{"sequence":1,'
         . '"received_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",'
         . '"source":"nango","type":"auth","operation":"creation",'
         . '"integration":"github","id":"' . $id . '",'
         . '"owner":\{"end_user_id":"42"\},"body_format":"json","body":'
         . '\{"authMode":"OAUTH2","environment":"dev","from":"nango",'
         . '"operation":"creation","provider":"github",'
         . '"providerConfigKey":"github","success":true,"type":"auth"\}\},'
         . '\{"sequence":2,"received_at":"[^"]+","source":"nango",'
         . '"type":"sync","operation":null,"integration":"github",'
         . '"id":"' . $id . '","owner":\{"end_user_id":"42"\},'
         . '"body_format":"json","body":\{"from":"nango","model":"Issue",'
         . '"providerConfigKey":"github",'
         . '"responseResults":\{"added":9007199254740993,"updated":0\},'
         . '"success":true,"syncName":"issues","type":"sync"\}\}\],'
         . '"next":3,"log":"[0-9a-f]{32}","more":false\}$')
--- response_headers eval
[('') x 3, 'Content-Type: application/json; charset=utf-8']



=== TEST 2: what is exposed, and the body as it was
--- config eval: $::Config
--- request eval
::ask('GET /exposed?limit=1')
--- more_headers eval
::as('X-User: 42')
--- response_body_like eval
my $body = quotemeta $::Three[0];
::expect('^\{"events":\[\{"sequence":1,.*"id":"[0-9a-f]{32}",'
         . '"connection_id":"c-1","owner":\{"end_user_id":"42"\},'
         . '"body_format":"json","body":' . $body . '\}\],'
         . '"next":1,"log":"[0-9a-f]{32}","more":true\}$')



=== TEST 3: after, and on from next
--- config eval: $::Config
--- request eval
::ask('GET /events?after=1', 'GET /events?after=2', 'GET /events?after=3')
--- more_headers eval
::as(('X-User: 42') x 3)
--- response_body_like eval
::expect('^\{"events":\[\{"sequence":2,(?!.*"sequence":[13])',
         '^\{"events":\[\],"next":3,', '^\{"events":\[\],"next":3,')



=== TEST 4: all owners must match
--- config eval: $::Config
--- request eval
::ask('GET /both', 'GET /both', 'GET /both')
--- more_headers eval
::as("X-User: 43\nX-Org: acme", "X-User: 43\nX-Org: other",
     "X-User: 44\nX-Org: acme")
--- response_body_like eval
::expect('^\{"events":\[\{"sequence":3,.*"owner":\{"end_user_id":"43",'
         . '"organization_id":"acme"\},', '^\{"events":\[\],', '^\{"events":\[\],')



=== TEST 5: by type
--- config eval: $::Config
--- request eval
::ask('GET /events?type=sync', 'GET /events?type=syn', 'GET /all?type=auth')
--- more_headers eval
::as(('X-User: 42') x 3)
--- response_body_like eval
::expect('^\{"events":\[\{"sequence":2,(?!.*"sequence":1)',
         '^\{"events":\[\],"next":3,', '"sequence":1,.*"sequence":3,')



=== TEST 6: all of them, with ids, tags and what belongs to nobody
--- config eval: $::Config
--- request eval
my $r = ::ask('GET /all');
[@$r[0..2], ::webhook('null'), $r->[3]]
--- more_headers eval
[(map { ::signature($_) } @::Three), ::signature('null'), '']
--- response_body_like eval
my $body = quotemeta $::Three[0];
[('"ack":true') x 4,
 '"sequence":1,.*"connection_id":"c-1","owner":\{"end_user_id":"42",'
 . '"organization_id":"acme"\},"body_format":"json","body":' . $body
 . '.*"sequence":3,.*"connection_id":"c-3","owner":\{"end_user_id":"43",'
 . '.*\{"sequence":4,"received_at":"[^"]+","source":"nango","type":"other",'
 . '"operation":null,"integration":null,"id":null,"connection_id":null,'
 . '"owner":\{\},"body_format":"json","body":null\}\],"next":4,']



=== TEST 7: a body that is no JSON is a string
--- config eval: $::Config
--- request eval
::one(qq(say "hello"\tto \\ all))
--- more_headers eval
[::signature(qq(say "hello"\tto \\ all)), '']
--- response_body_like eval
['"ack":true', '"body_format":"text","body":"say \\\\"hello\\\\"\\\\u0009to \\\\\\\\ all"\}\]']



=== TEST 8: one that is no UTF-8 is base64
--- config eval: $::Config
--- request eval
::one("\xff\xfe1")
--- more_headers eval
[::signature("\xff\xfe1"), '']
--- response_body_like eval
['"ack":true', '"body_format":"base64","body":"//4x"\}\]']



=== TEST 9: JSON with bytes that are no UTF-8 does not spoil the page
--- config eval: $::Config
--- request eval
::one(qq({"a":"\xff"}))
--- more_headers eval
[::signature(qq({"a":"\xff"})), '']
--- response_body_like eval
['"ack":true', '"body_format":"base64","body":"eyJhIjoi/yJ9"\}\]']



=== TEST 10: JSON that nests too deep is text
--- config eval: $::Config
--- request eval
::one('[' x 2000 . ']' x 2000)
--- more_headers eval
[::signature('[' x 2000 . ']' x 2000), '']
--- response_body_like eval
['"ack":true', '"body_format":"text","body":"\[{2000}\]{2000}"\}\]']



=== TEST 11: an empty body
--- config eval: $::Config
--- request eval
::one('')
--- more_headers eval
[::signature(''), '']
--- response_body_like eval
['"ack":true', '"body_format":"text","body":""\}\]']



=== TEST 12: a large body is not part of a page, and comes alone
--- config eval: $::Config
--- request eval
my $b = '{"connectionId":"c-1","type":"sync","providerConfigKey":"github","x":"' . 'y' x 200000 . '"}';
::one($b, 'GET /all', 'GET /all?body=1')
--- more_headers eval
my $b = '{"connectionId":"c-1","type":"sync","providerConfigKey":"github","x":"' . 'y' x 200000 . '"}';
[::signature($b), '', '']
--- response_body_like eval
['"ack":true',
 '"type":"sync",.*"body_format":"file","body_length":200072,"body":null\}\]',
 '^\{"connectionId":"c-1","type":"sync","providerConfigKey":"github","x":"y{2000}[y]+"\}$']
--- response_headers eval
['Content-Type: application/json; charset=utf-8',
 'Content-Type: application/json; charset=utf-8',
 'Content-Type: application/octet-stream']
--- raw_response_headers_like eval
['', '', 'Content-Length: 200072\r.*X-Content-Type-Options: nosniff\r.*Cache-Control: no-store']



=== TEST 13: nobody's body is another's, nor shown where half of it is hidden
--- config eval: $::Config
--- request eval
::ask('GET /exposed?body=1', 'GET /id?body=1', 'GET /tags?body=1')
--- more_headers eval
::as('X-User: 43', ('X-User: 42') x 2)
--- error_code eval
[(200) x 3, 404, 403, 403]



=== TEST 14: small bodies come alone as well, to those who may see all of them
--- config eval: $::Config
--- request eval
::ask('GET /exposed?body=2', 'GET /exposed?body=3', 'GET /exposed?body=9',
      'GET /exposed?body=0', 'GET /events?body=2', 'HEAD /all?body=3')
--- more_headers eval
::as(('X-User: 42') x 6)
--- response_body eval
[(map { qq({"ack":true,"sequence":$_}) } 1 .. 3), $::Three[1],
 ('{"error":{"code":"event_not_found","message":"There is no such event"}}') x 3,
 '{"error":{"code":"not_permitted","message":'
 . '"Bodies are not shown as they are here"}}', '']
--- error_code eval
[200, 200, 200, 200, 404, 404, 404, 403, 200]



=== TEST 15: nobody
--- config eval: $::Config
--- request
GET /events
--- error_code: 401
--- response_headers
X-Nango-Error: owner_required
--- response_body_like: "code":"owner_required"



=== TEST 16: other methods
--- config eval: $::Config
--- request eval
['POST /events', 'DELETE /all', 'PUT /all']
--- more_headers
X-User: 42
--- error_code eval
[405, 405, 405]
--- response_headers eval
[('Allow: GET, HEAD') x 3]



=== TEST 17: HEAD
--- config eval: $::Config
--- request
HEAD /events
--- more_headers
X-User: 42
--- response_body
--- response_headers_like
Content-Length: [1-9]\d+



=== TEST 18: numbers that are none, or out of range
--- config eval: $::Config
--- request eval
[map { "GET /events?$_" } qw(limit=0 limit=1001 limit=x limit= after=-1
 after=x after=99999999999999999999 wait=56 wait=x body=x body=)]
--- more_headers
X-User: 42
--- error_code eval
[(400) x 11]
--- response_headers eval
[('X-Nango-Error: invalid_body') x 11]



=== TEST 19: what is not known is passed over, as in other queries
--- config eval: $::Config
--- request
GET /events?colour=red
--- more_headers
X-User: 42
--- error_code: 200
--- response_body_like: ^\{"events":\[\],"next":0,



=== TEST 20: another log, by its id and by a sequence it never had
--- config eval: $::Config
--- request eval
::ask('GET /events?after=1&log=00112233445566778899aabbccddeeff',
      'GET /events?log=x', 'GET /events?after=4',
      'GET /all?after=9007199254740993')
--- more_headers eval
::as(('X-User: 42') x 4)
--- error_code eval
[(200) x 3, (409) x 4]
--- response_headers eval
[('') x 3, ('X-Nango-Error: log_changed') x 4]



=== TEST 21: another environment's events are not seen
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }
    nango_environment twin { webhook_signing_key data:$NangoTest::KEY; }
}
--- config
    location = /webhook { nango_webhook prod; }
    location = /twin {
        nango_owner  end_user_id $http_x_user;
        nango_events twin;
    }
    location = /all {
        allow 127.0.0.1;
        nango_events twin all;
    }
--- request eval
::ask('GET /twin', 'GET /all')
--- more_headers eval
::as(('X-User: 42') x 2)
--- response_body_like eval
::expect(('^\{"events":\[\],"next":3,') x 2)



=== TEST 22: whose the connection is now, and a deleted one's
--- config eval: $::Config
--- request eval
my @e = (::event('creation', 'true', 'c-1', end_user_id => '42'),
         ::event('override', 'true', 'c-1', end_user_id => '43'),
         ::event('deletion', 'true', 'c-1'));
[(map { ::webhook($_) } @e), 'GET /events', 'GET /events']
--- more_headers eval
my @e = (::event('creation', 'true', 'c-1', end_user_id => '42'),
         ::event('override', 'true', 'c-1', end_user_id => '43'),
         ::event('deletion', 'true', 'c-1'));
[(map { ::signature($_) } @e), 'X-User: 42', 'X-User: 43']
--- response_body_like eval
[('"ack":true') x 3, '^\{"events":\[\],"next":3,',
 '^\{"events":\[\{"sequence":2,.*"operation":"deletion"']



=== TEST 23: a wait that is over
--- config eval: $::Config
--- request
GET /events?wait=1
--- more_headers
X-User: 42
--- response_body_like: ^\{"events":\[\],"next":0,"log":"[0-9a-f]{32}","more":false\}$



=== TEST 24: inside limit_except and if
--- config
    location = /events {
        nango_owner end_user_id $http_x_user;
        if ($arg_x) { set $y 1; }
        limit_except GET { deny all; }
        nango_events;
    }
--- request eval
['GET /events', 'GET /events?x=1', 'POST /events']
--- more_headers
X-User: 42
--- error_code eval
[200, 200, 403]



=== TEST 25: not for pages of other sites
--- config eval: $::Config
--- request
GET /events
--- more_headers
X-User: 42
Origin: https://evil.example.com
--- error_code: 403
--- response_headers
X-Nango-Error: origin_not_allowed
--- response_body_like: "code":"origin_not_allowed"



=== TEST 26: a stream that cannot go on is refused before it begins
--- config eval: $::Config
--- request eval
['GET /events', 'GET /events?log=00', 'GET /events', 'HEAD /events']
--- more_headers eval
my $a = "X-User: 42\nAccept: text/event-stream";
["$a\nLast-Event-ID: x", $a, "$a\nLast-Event-ID: 7", $a]
--- error_code eval
[400, 409, 409, 200]
--- response_headers eval
['X-Nango-Error: invalid_body', ('X-Nango-Error: log_changed') x 2,
 'Content-Type: text/event-stream; charset=utf-8']
