# nango_connections: lists, pages, single ones, and who sees what.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Config = <<'EOF';
    location = /webhook { nango_webhook; }

    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }

    location = /exposed {
        nango_owner  end_user_id $http_x_user;
        nango_expose connection_id;
        nango_connections;
    }

    location = /both {
        nango_owner end_user_id     $http_x_user;
        nango_owner organization_id $http_x_org;
        nango_expose connection_id;
        nango_connections;
    }
EOF

our @Three = (
    event('creation', 'true', 'c-1', end_user_id => '42',
          organization_id => 'acme'),
    event('creation', 'true', 'c-2', end_user_id => '42',
          integration => 'slack'),
    event('creation', 'true', 'c-3', end_user_id => '43',
          organization_id => 'acme'),
);

# Requests and headers: the three webhooks, then what is asked, as user 42.
sub ask {
    return [(map { webhook($_) } @Three), @_];
}

sub as {
    my (@headers) = @_;

    return [(map { signature($_) } @Three), @headers];
}

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

sub expect {
    return [('"ack":true') x 3, @_];
}

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: newest first, and nothing that was not to be exposed
--- config eval: $::Config
--- request eval
::ask('GET /connections')
--- more_headers eval
::as('X-User: 42')
--- response_body_like eval
::expect('^\{"connections":\[\{"id":"[0-9a-f]{32}","integration":"slack",'
         . '"provider":"slack","status":"valid","status_since":"[^"]+",'
         . '"checked_at":"[^"]+","error":null,"owner":\{"end_user_id":"42"\},'
         . '"created_at":"[^"]+","updated_at":"[^"]+"\},'
         . '\{"id":"[0-9a-f]{32}","integration":"github",(?!.*c-\d)')



=== TEST 2: the connection id where it is exposed
--- config eval: $::Config
--- request eval
::ask('GET /exposed')
--- more_headers eval
::as('X-User: 42')
--- response_body_like eval
::expect('"connection_id":"c-2".*"connection_id":"c-1"(?!.*c-3)')



=== TEST 3: all owners must match
--- config eval: $::Config
--- request eval
::ask('GET /both', 'GET /both')
--- more_headers eval
::as("X-User: 42\nX-Org: acme", "X-User: 42\nX-Org: other")
--- response_body_like eval
::expect('^\{"connections":\[\{[^]]*"connection_id":"c-1"\}\],',
         '^\{"connections":\[\],')



=== TEST 4: by integration, and by its other names
--- config eval: $::Config
--- request eval
::ask('GET /exposed?integration=github',
      'GET /exposed?provider_config_key=slack',
      'GET /exposed?integration_id=none')
--- more_headers eval
::as(('X-User: 42') x 3)
--- response_body_like eval
::expect('^\{"connections":\[\{[^]]*"c-1"\}\],',
         '^\{"connections":\[\{[^]]*"c-2"\}\],', '^\{"connections":\[\],')



=== TEST 5: pages
--- config eval: $::Config
--- request eval
::ask('GET /exposed?limit=1', 'GET /exposed?limit=1&cursor=0000000000000002',
      'GET /exposed?limit=2')
--- more_headers eval
::as(('X-User: 42') x 3)
--- response_body_like eval
::expect('"c-2".*"next":"0000000000000002"\}$', '"c-1".*"next":null\}$',
         '"c-2".*"c-1".*"next":null\}$')



=== TEST 6: limits that are none
--- config eval: $::Config
--- request eval
['GET /connections?limit=0', 'GET /connections?limit=1001',
 'GET /connections?limit=x', 'GET /connections?cursor=x',
 'GET /connections?since=-1']
--- more_headers
X-User: 42
--- error_code eval
[400, 400, 400, 400, 400]
--- response_body_like eval
['limit must be', 'limit must be', 'limit must be', 'cursor must be',
 'since must be']



=== TEST 7: since: whether anything of the caller's changed
--- config eval: $::Config
--- request eval
::ask('GET /connections?since=1', 'GET /connections?since=2',
      'GET /connections?since=2')
--- more_headers eval
::as('X-User: 42', 'X-User: 42', 'X-User: 43')
--- response_body_like eval
::expect('"changed":true', '"changed":false', '"changed":true')



=== TEST 8: one by its id, and another's is not there
--- config eval: $::Config
--- request eval
my $id = ::id('prod', 'github', 'c-1');
::ask("GET /exposed?id=$id", 'GET /exposed?id=' . uc $id,
      'GET /exposed?id=' . ::id('prod', 'github', 'c-3'),
      'GET /exposed?id=00000000000000000000000000000000',
      'GET /exposed?id=c-1', 'GET /exposed?id=')
--- more_headers eval
::as(('X-User: 42') x 6)
--- error_code eval
[200, 200, 200, 200, 200, 404, 404, 404, 404]
--- response_body_like eval
::expect('^\{"id":"[0-9a-f]{32}",.*"connection_id":"c-1"\}$', '"c-1"',
         ('connection_not_found') x 4)



=== TEST 9: by its id too all owners must match
--- config eval: $::Config
--- request eval
::ask(map { 'GET /both?id=' . ::id('prod', 'github', $_) }
          'c-1', 'c-1', 'c-3', 'c-3')
--- more_headers eval
::as(map { "X-User: $_->[0]\nX-Org: $_->[1]" }
         [42, 'acme'], [42, 'other'], [42, 'acme'], [43, 'acme'])
--- error_code eval
[(200) x 4, 404, 404, 200]



=== TEST 10: nobody
--- config eval: $::Config
--- request
GET /connections
--- error_code: 401
--- response_headers
X-Nango-Error: owner_required



=== TEST 11: other methods
--- config eval: $::Config
--- request
PUT /connections
--- more_headers
X-User: 42
--- error_code: 405
--- response_headers
Allow: GET, HEAD, POST, DELETE



=== TEST 12: HEAD
--- config eval: $::Config
--- request
HEAD /connections
--- more_headers
X-User: 42
--- error_code: 200
--- response_body:



=== TEST 13: another environment's connections are not seen
--- http_config eval
qq{
    nango_store nango_cache;
    nango_environment dev { webhook_signing_key data:$NangoTest::KEY; }
    nango_environment prod { webhook_signing_key data:$NangoTest::KEY; }
}
--- config
    location = /webhook { nango_webhook dev; }
    location = /dev {
        nango_owner end_user_id $http_x_user;
        nango_connections dev;
    }
    location = /prod {
        nango_owner end_user_id $http_x_user;
        nango_connections prod;
    }
--- request eval
::ask('GET /dev', 'GET /prod')
--- more_headers eval
::as('X-User: 42', 'X-User: 42')
--- response_body_like eval
::expect('"integration":"github"', '^\{"connections":\[\],')



=== TEST 14: owners that are written like others
--- config eval: $::Config
--- request eval
::ask('GET /connections', 'GET /connections', 'GET /connections',
      'GET /connections')
--- more_headers eval
::as('X-User: 4', 'X-User: 42%00', 'X-User: 42;', "X-User: 042")
--- response_body_like eval
::expect(('^\{"connections":\[\],') x 4)



=== TEST 15: a deleted one is gone, and the replay of its creation is ignored
--- config eval: $::Config
--- request eval
$::gone = event('deletion', 'true', 'c-1', end_user_id => '42');
$::again = event('override', 'true', 'c-1', end_user_id => '42');
[webhook($::Three[0]), webhook($::gone), webhook($::again), 'GET /connections']
--- more_headers eval
[signature($::Three[0]), signature($::gone), signature($::again),
 'X-User: 42']
--- response_body_like eval
['"sequence":1', '"sequence":2', '"sequence":3', '^\{"connections":\[\],']



=== TEST 16: inside limit_except and if
--- config
    location = /webhook { nango_webhook; }
    location = /except {
        nango_owner end_user_id $http_x_user;
        nango_connections;
        limit_except POST { allow all; }
    }
    location = /if {
        nango_owner end_user_id $http_x_user;
        if ($http_x_user) { nango_connections; }
    }
--- request eval
::ask('GET /except', 'GET /if')
--- more_headers eval
::as('X-User: 43', 'X-User: 43')
--- response_body_like eval
::expect('"integration":"github"', '"integration":"github"')
