# nango_catalog: which integrations the caller may connect, and has.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

sim_start('--integration', 'github:github:OAUTH2',
          '--integration', 'slack:slack:OAUTH2');

our $Config = <<'EOF';
    nango_owner end_user_id $http_x_user;

    location = /webhook { nango_webhook; }
    location = /connections { nango_connections; }
    location = /catalog { nango_catalog; }
    location = /one {
        nango_integrations slack none;
        nango_catalog prod;
    }
    location = /variable {
        nango_integrations $arg_i;
        nango_catalog;
    }
    location /_sim/ {
        proxy_set_header Host localhost;
        proxy_pass $TEST_NGINX_NANGO_API;
    }
EOF

our $Seen = 'GET /_sim/requests?path=/integrations';
our @Events;

sub steps {
    my ($events, @requests) = @_;

    @Events = @$events;

    return [(map { webhook($_) } @Events), 'GET /connections', @requests];
}

sub headers {
    return [(map { signature($_) } @Events), 'X-User: 42',
            map { "X-User: $_" } @_];
}

sub bodies {
    return [('"ack":true') x @Events, '"connections"', @_];
}

sub codes {
    return [(200) x @Events, 200, @_];
}

sub item {
    my ($id, $provider, $name, $status) = @_;

    return qq(\\{"integration":"$id","provider":"$provider",)
           . qq("display_name":"$name","logo":"http[^"]*/$provider\\.svg",)
           . ($status ? qq("connected":true,"status":"$status")
                      : '"connected":false,"status":null') . '\}';
}

# The whole answer, by what the caller has.
sub list {
    my ($github, $slack) = @_;

    return '^\{"integrations":\[' . item('github', 'github', '\w+', $github)
           . ',' . item('slack', 'slack', '\w+', $slack) . '\]\}$';
}

sub answers {
    my ($effect) = @_;

    NangoTest::sim('reset');
    NangoTest::sim('faults', '{"faults":[{"path":"/integrations",'
                             . $effect . '}]}');
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42'));
our @Broken = (@One, event('refresh', 'false', 'c-1', error => 'revoked'));
our @Both = (@Broken, event('creation', 'true', 'c-2', end_user_id => '42'),
             event('creation', 'true', 'c-3', end_user_id => '42',
                   integration => 'slack'));

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

=== TEST 1: all of them; asked for once
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /catalog', 'GET /catalog', 'HEAD /catalog',
        'POST /catalog', 'GET /catalog', $::Seen)
--- more_headers eval: ::headers(42, 43, 42, 42, '', 42)
--- error_code eval: ::codes(200, 200, 200, 405, 401, 200)
--- response_body_like eval
::bodies(::list('valid', ''), ::list('', ''), '^$', 'method_not_allowed',
         'owner_required', '^\{"count":1,')



=== TEST 2: invalid; of several a valid one counts
--- config eval: $::Config
--- request eval: ::steps(\@::Broken, 'GET /catalog')
--- more_headers eval: ::headers(42)
--- response_body_like eval: ::bodies(::list('invalid', ''))



=== TEST 3: both
--- config eval: $::Config
--- request eval: ::steps(\@::Both, 'GET /catalog')
--- more_headers eval: ::headers(42)
--- response_body_like eval: ::bodies(::list('valid', 'valid'))



=== TEST 4: only what the location allows
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /one', 'GET /variable?i=github', 'GET /variable',
        'GET /variable?i=a/b', 'GET /variable?i=gith')
--- more_headers eval: ::headers((42) x 5)
--- response_body_like eval
::bodies('^\{"integrations":\[' . ::item('slack', 'slack', '\w+', '')
         . '\]\}$',
         '^\{"integrations":\[' . ::item('github', 'github', '\w+', 'valid')
         . '\]\}$', ('^\{"integrations":\[\]\}$') x 3)



=== TEST 5: what is no list is none; hostile members are left out
--- init
::answers('"body":"{\"data\":[1,null,{},[],{\"unique_key\":1},'
    . '{\"unique_key\":\"a/b\"},{\"unique_key\":\"\"},'
    . '{\"unique_key\":\"\\\\ud800\"},'
    . '{\"unique_key\":\"x\",\"provider\":[\"<\"],\"display_name\":'
    . '{\"a\":1},\"logo\":\"javascript:1\",\"secret\":\"s\"}]}"')
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog')
--- more_headers eval: ::headers(42)
--- response_body_like eval
::bodies('^\{"integrations":\[\{"integration":"x","provider":null,'
         . '"display_name":null,"logo":"javascript:1","connected":false,'
         . '"status":null\}\]\}$')



=== TEST 6: a reply of another kind, for those who come soon as well
--- init
::answers('"body":"{\"data\":{}}"')
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog', $::Seen)
--- more_headers eval: ::headers(42, 42)
--- error_code eval: ::codes(502, 200)
--- response_body_like eval: ::bodies('nango_error', '"count":1,')



=== TEST 7: cut JSON
--- init
::answers('"bad_json":true')
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog')
--- more_headers eval: ::headers(42)
--- error_code eval: ::codes(502)
--- response_body_like eval: ::bodies('nango_error')



=== TEST 8: too many requests
--- init
::answers('"status":429,"retry_after":9')
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog', 'GET /catalog', $::Seen)
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(429, 429, 200)
--- response_body_like eval
::bodies('rate_limited', 'rate_limited', '"count":1,')
--- raw_response_headers_like eval
['', ('Retry-After: [89]') x 2, '']



=== TEST 9: a wrong key
--- init
NangoTest::sim('reset');
NangoTest::sim('state', '{"api_keys":["b3a1c0de-0000-4000-8000-00000000eeee"]}')
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog')
--- more_headers eval: ::headers(42)
--- error_code eval: ::codes(502)
--- response_body_like eval: ::bodies('nango_error')



=== TEST 10: nobody to be asked
--- http_config eval
<<"EOF";
    nango_store nango_cache;

    nango_environment prod {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        api_key             data:$NangoTest::API_KEY;
        webhook_signing_key data:$NangoTest::KEY;
    }
EOF
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog', 'GET /catalog')
--- more_headers eval: ::headers(42, 42)
--- error_code eval: ::codes(503, 503)
--- response_body_like eval: ::bodies(('nango_unavailable') x 2)



=== TEST 11: after a failure Nango is left alone for a moment
--- init
::answers('"status":500')
--- config eval: $::Config
--- request eval
::steps([], 'GET /catalog', 'GET /catalog', 'GET /catalog', $::Seen)
--- more_headers eval: ::headers((42) x 4)
--- error_code eval: ::codes(502, 503, 503, 200)
--- response_body_like eval
::bodies('nango_error', ('nango_unavailable') x 2, '^\{"count":1,')



=== TEST 12: a page of another origin
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog', 'GET /catalog', $::Seen)
--- more_headers eval
::headers("42\nOrigin: https://evil.example",
          "42\nSec-Fetch-Site: cross-site", 42)
--- error_code eval: ::codes(403, 403, 200)
--- response_body_like eval
::bodies(('origin_not_allowed') x 2, '^\{"count":0,')



=== TEST 13: silence
--- init
::answers('"hang":true')
--- http_config eval
<<"EOF";
    nango_store nango_cache;

    nango_environment prod {
        api                 \$TEST_NGINX_NANGO_API;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$NangoTest::API_KEY;
        api_timeout         300ms;
        webhook_signing_key data:$NangoTest::KEY;
        reconcile           off;
    }
EOF
--- config eval: $::Config
--- request eval: ::steps([], 'GET /catalog')
--- more_headers eval: ::headers(42)
--- timeout: 20
--- error_code eval: ::codes(504)
--- response_body_like eval: ::bodies('nango_timeout')
