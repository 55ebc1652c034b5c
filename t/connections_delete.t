# DELETE of nango_connections: at Nango, then here.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Config = <<'EOF';
    location = /webhook { nango_webhook; }

    location = /connections {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id tags;
        nango_connections;
    }

    location /_sim/ {
        client_body_buffer_size 1m;
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $User = 'X-User: 42';
our $List = 'GET /connections';
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

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

sub by_id {
    return 'DELETE /connections?id=' . id('prod', @_);
}

# What the simulator has.
sub nango {
    NangoTest::sim('reset');
    NangoTest::sim('state', '{"connections":['
        . join(',', map {
            qq({"integration":"github","connection_id":"$_",)
            . qq("tags":{"end_user_id":"42"}})
        } @_) . ']}');
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42'));
our @Two = (@One, event('creation', 'true', 'c-2', end_user_id => '42'));
our $Gone = '^\{"success":true\}$';
our $Not_there = '^\{"error":\{"code":"connection_not_found",'
                 . '"message":"There is no such connection"\}\}$';

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value('init', q(::nango(qw( c-1 c-2 c-3 ))))
        if !defined $block->init;

    NangoTest::prepare($block);
});

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: by id: what Nango was asked, and what is left
--- config eval: $::Config
--- request eval
::given(\@::Two, ::by_id('github', 'c-1'), $::List, $::Seen,
      'GET /_sim/state')
--- more_headers eval: ::headers($::User, $::User, '', '')
--- response_body_like eval
::bodies($::Gone, '^(?!.*"c-1").*"c-2".*"sequence":3,',
         '"count":1,.*"method":"DELETE",'
         . '"path":"/connections/c-1\?provider_config_key=github"',
         '^(?!.*"c-1").*"c-2"')



=== TEST 2: by integration
--- config eval: $::Config
--- request eval
::given([@::One, ::event('creation', 'true', 's-1', end_user_id => '42',
                       integration => 'slack')],
      'DELETE /connections?integration=github', $::List,
      'DELETE /connections?provider_config_key=slack')
--- more_headers eval: ::headers($::User, $::User, $::User)
--- response_body_like eval
::bodies($::Gone, '^(?!.*"c-1").*"s-1"', $::Gone)



=== TEST 3: what the log has of it
--- config eval
$::Config . <<'EOF';
    location = /events { allow 127.0.0.1; nango_events all; }
EOF
--- request eval
::given(\@::One, 'DELETE /connections?integration=github',
        'GET /events?after=1')
--- more_headers eval: ::headers($::User, '')
--- response_body_like eval
::bodies($::Gone, '"source":"edge","type":"auth","operation":"deletion",'
    . '"integration":"github",.*"connection_id":"c-1",.*'
    . '"from":"nango-edge",.*"tags":\{"end_user_id":"42"\}')



=== TEST 4: an invalid one as well
--- config eval: $::Config
--- request eval
::given([@::One, ::event('refresh', 'false', 'c-1', error => 'x')],
      ::by_id('github', 'c-1'), $::List)
--- more_headers eval: ::headers($::User, $::User)
--- response_body_like eval: ::bodies($::Gone, '"connections":\[\],')



=== TEST 5: several of an integration: the choices, and nothing is deleted
--- config eval: $::Config
--- request eval
::given(\@::Two, 'DELETE /connections?integration=github', $::Seen, $::List)
--- more_headers eval: ::headers($::User, '', $::User)
--- error_code eval: ::codes(409, 200, 200)
--- response_body_like eval
::bodies('"code":"connection_ambiguous".*"choices":\[\{"id":"'
         . ::id('prod', 'github', 'c-2') . '".*"id":"'
         . ::id('prod', 'github', 'c-1') . '"',
         '"count":0\b', '"c-2".*"c-1".*"sequence":2,')



=== TEST 6: unknown at Nango is as good as deleted
--- init
::nango()
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List)
--- more_headers eval: ::headers($::User, $::User)
--- response_body_like eval: ::bodies($::Gone, '"connections":\[\],"sequence":2,')



=== TEST 7: afterwards it is not there, whatever comes late
--- config eval: $::Config
--- request eval
my @late = (@::One, ::event('override', 'true', 'c-1', end_user_id => '42'),
            ::event('refresh', 'true', 'c-1', end_user_id => '42'),
            ::event('deletion', 'true', 'c-1'));
::given(\@::One, ::by_id('github', 'c-1'), (map { webhook($_) } @late), $::List,
      'GET /connections?id=' . ::id('prod', 'github', 'c-1'),
      ::by_id('github', 'c-1'), 'DELETE /connections?integration=github')
--- more_headers eval
my @late = (@::One, ::event('override', 'true', 'c-1', end_user_id => '42'),
            ::event('refresh', 'true', 'c-1', end_user_id => '42'),
            ::event('deletion', 'true', 'c-1'));
::headers($::User, (map { signature($_) } @late), ($::User) x 4)
--- error_code eval: ::codes(200, 200, 200, 200, 200, 200, 404, 404, 404)
--- response_body_like eval
::bodies($::Gone, ('"ack":true') x 4, '"connections":\[\],',
         ($::Not_there) x 3)



=== TEST 8: somebody else's is not there, and Nango is not asked
--- config eval: $::Config
--- request eval
::given([@::One, ::event('creation', 'true', 'c-3', end_user_id => '43'),
       ::event('creation', 'true', 'c-4')],
      ::by_id('github', 'c-3'), ::by_id('github', 'c-4'),
      ::by_id('github', 'c-9'), 'DELETE /connections?integration=slack',
      'DELETE /connections?id=' . ::id('dev', 'github', 'c-1'),
      'DELETE /connections?id=', 'DELETE /connections?id=c-1',
      'DELETE /connections?integration=',
      ::by_id('github', 'c-1') . '&integration=slack', $::Seen)
--- more_headers eval: ::headers(($::User) x 9, '')
--- error_code eval: ::codes((404) x 9, 200)
--- response_body_like eval: ::bodies(($::Not_there) x 9, '"count":0\b')



=== TEST 9: neither is everything, nor something that is not said
--- config eval: $::Config
--- request eval
::given(\@::One, 'DELETE /connections', 'DELETE /connections?connection_id=c-1',
      'DELETE /connections?limit=x&integration=github', $::List, $::Seen)
--- more_headers eval: ::headers(($::User) x 4, '')
--- error_code eval: ::codes(400, 400, 400, 200, 200)
--- response_body_like eval
::bodies('The query must have id or integration',
         'The query must have id or integration', 'limit must be', '"c-1"',
         '"count":0\b')



=== TEST 10: Nango is down, and nothing has changed
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
--- more_headers eval: ::headers($::User, $::User)
--- error_code eval: ::codes(503, 200)
--- response_body_like eval
::bodies('"nango_unavailable"', '"c-1".*"sequence":1,')



=== TEST 11: slow, failing, cut short, over its limit: nothing has changed
--- init
::nango('c-1');
NangoTest::sim('faults', '{"faults":['
    . join(',', map { '{"method":"DELETE","path":"/connections/c-1",'
                      . '"times":1,' . $_ . '}' }
           '"hang":true', '"status":500', '"status":401', '"status":404',
           '"status":302,"headers":["Location","http://127.0.0.1:1/"]',
           '"status":400,"body":"{\"error\":{\"code\":\"unknown\"}}"',
           '"status":429,"retry_after":30')
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
--- more_headers eval: ::headers(($::User) x 8, $::User, '')
--- error_code eval
::codes(504, 502, 502, 502, 502, 502, 429, 429, 200, 200)
--- response_body_like eval
::bodies('nango_timeout', ('nango_error') x 5, ('rate_limited') x 2,
         '"c-1".*"sequence":1,', '"count":7\b')



=== TEST 12: the answer was lost on its way: asking again goes on
--- init
::nango('c-1');
NangoTest::sim('faults', '{"faults":[{"method":"DELETE",'
    . '"path":"/connections/c-1","times":1,"cut_after":10}]}')
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List, ::by_id('github', 'c-1'),
      $::List)
--- more_headers eval: ::headers(($::User) x 4)
--- error_code eval: ::codes(503, 200, 200, 200)
--- response_body_like eval
::bodies('nango_unavailable', '"c-1"', $::Gone, '"connections":\[\],')



=== TEST 13: a 200 of something that is no Nango deletes nothing
--- init
::nango('c-1');
NangoTest::sim('faults', '{"faults":['
    . join(',', map { '{"method":"DELETE","path":"/connections/c-1",'
                      . '"times":1,' . $_ . '}' }
           '"status":200,"body":"<html>Welcome</html>",'
           . '"headers":["Content-Type","text/html"]',
           '"status":200,"body":"{}"',
           '"status":200,"body":"{\"success\":false}"',
           '"status":200,"body":"{\"success\":\"true\"}"',
           '"status":200,"body":"[true]"', '"status":200,"body":""',
           '"status":200,"body":"{\"error\":{\"code\":'
           . '\"unknown_connection\"}}"')
    . ']}')
--- config eval: $::Config
--- request eval
::given(\@::One, (::by_id('github', 'c-1')) x 7, $::List)
--- more_headers eval: ::headers(($::User) x 7, $::User)
--- error_code eval: ::codes((502) x 7, 200)
--- response_body_like eval
::bodies(('"nango_error"') x 7, '"c-1".*"sequence":1,')



=== TEST 14: ids that would be other paths are not asked for
--- config eval: $::Config
--- request eval
::given([map { ::event('creation', 'true', $_, end_user_id => '42') } '.', '..'],
      ::by_id('github', '.'), ::by_id('github', '..'), $::Seen)
--- more_headers eval: ::headers(($::User) x 2, '')
--- error_code eval: ::codes((404) x 2, 200)
--- response_body_like eval: ::bodies(($::Not_there) x 2, '"count":0\b')



=== TEST 15: ids with whatever is in them stay one part of the path
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"integrations":[{"id":"a b:c","provider":"github",'
    . '"auth":"OAUTH2"}],"connections":[{"integration":"a b:c",'
    . '"connection_id":"{}\\"\'\\\\|/ $=+~[]@.,;:_-"}]}')
--- config eval: $::Config
--- request eval
::given([::event('creation', 'true', '{}\\"\'\\\\|/ $=+~[]@.,;:_-',
               end_user_id => '42', integration => 'a b:c'),
       ::event('creation', 'true', '../../environment', end_user_id => '42')],
      'DELETE /connections?integration=a+b%3Ac',
      'DELETE /connections?integration=github', $::Seen)
--- more_headers eval: ::headers($::User, $::User, '')
--- response_body_like eval
::bodies($::Gone, $::Gone,
 '"path":"/connections/%7B%7D%22%27%5C%7C%2F%20%24%3D%2B~%5B%5D%40.%2C%3B%3A_-'
 . '\?provider_config_key=a%20b%3Ac".*'
 . '"path":"/connections/..%2F..%2Fenvironment\?provider_config_key=github"')



=== TEST 16: Nango's own webhook of it may come as well, before or after
--- config eval: $::Config
--- request eval
::given([@::Two, ::event('deletion', 'true', 'c-2')], ::by_id('github', 'c-1'),
      webhook(::event('deletion', 'true', 'c-1')), $::List)
--- more_headers eval
::headers($::User, signature(::event('deletion', 'true', 'c-1')), $::User)
--- response_body_like eval
::bodies($::Gone, '"ack":true', '"connections":\[\],"sequence":5,')



=== TEST 17: nobody
--- config eval: $::Config
--- request
DELETE /connections?integration=github
--- error_code: 401



=== TEST 18: without a key Nango cannot be asked
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:$NangoTest::KEY;
    }
}
--- config eval: $::Config
--- request eval
::given(\@::One, ::by_id('github', 'c-1'), $::List)
--- more_headers eval: ::headers($::User, $::User)
--- error_code eval: ::codes(503, 200)
--- response_body_like eval: ::bodies('"nango_unavailable"', '"c-1"')



=== TEST 19: a body means nothing and is no harm
--- config eval: $::Config
--- request eval
::given(\@::Two, ::by_id('github', 'c-1') . "\n{\"id\":\"x\"}",
      ::by_id('github', 'c-2') . "\n" . 'x' x 100000, $::List)
--- more_headers eval: ::headers($::User, $::User, $::User)
--- response_body_like eval
::bodies($::Gone, $::Gone, '"connections":\[\],')

