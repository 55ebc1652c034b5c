# nango_require: the caller's connection, found before a location answers,
# whatever answers there.

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(sha256_hex);
use NangoTest;
use Test::Nginx::Socket 'no_plan';

our $Show = 'add_header X-Is "$nango_connection_id|$nango_connection_status|'
            . '$nango_connection_provider" always;';

our $Config = <<"EOF";
    nango_owner end_user_id \$http_x_user;
    $Show

    location = /webhook { nango_webhook; }
    location = /connections { nango_connections; nango_session_limit off; }

    location = /gif      { nango_require github; empty_gif; }
    location = /none     { empty_gif; }
    location = /slack    { nango_require prod slack; empty_gif; }
    location = /optional { nango_require github optional; empty_gif; }
    location = /refuse   { nango_require github multiple=refuse; empty_gif; }
    location = /newest   { nango_require github multiple=newest; empty_gif; }
    location = /id       { nango_require github id=\$arg_id; empty_gif; }
    location = /which    { nango_require \$arg_i; empty_gif; }
    location = /maybe    { nango_require github id=\$arg_id optional;
                           empty_gif; }
EOF

our @Events;

# Events, then a look that waits until they are in the state, then the rest.
sub steps {
    my ($events, @requests) = @_;

    @Events = @$events;

    return [(map { webhook($_) } @Events), 'GET /connections', @requests];
}

sub headers {
    return [(map { signature($_) } @Events), 'X-User: 42',
            map { /^\w*$/ ? "X-User: $_" : $_ } @_];
}

sub codes {
    return [(200) x @Events, 200, @_];
}

sub bodies {
    return [('"ack":true') x @Events, '"connections"', @_];
}

# What X-Is says; the endpoints before have found nothing.
sub shows {
    return [map { "X-Is: $_" } ('\|\|') x @Events, '\|\|', @_];
}

# The opaque id, as docs/internals.md has it.
sub id {
    return substr sha256_hex('c', map { pack('N', length) . $_ } @_), 0, 32;
}

sub invalid {
    my ($connection) = @_;

    return '^\{"error":\{"code":"connection_invalid","message":"The connection'
           . ' needs to be authorised again"\},"id":"'
           . id('prod', 'github', $connection) . '"\}$';
}

our @One = (event('creation', 'true', 'c-1', end_user_id => '42'));
our @Broken = (@One, event('refresh', 'false', 'c-1', error => 'revoked'));
our @Two = (@One, event('creation', 'true', 'c-2', end_user_id => '42'));
our @Mixed = (@Two, event('refresh', 'false', 'c-2', error => 'revoked'));
our @Bad = (@Mixed, event('refresh', 'false', 'c-1', error => 'revoked'));
our @Many = (@One, map { (event('creation', 'true', "c-$_", end_user_id => 42),
                          event('refresh', 'false', "c-$_", error => 'no')) }
                       2 .. 6);
our @Gone = (@One, event('deletion', 'true', 'c-1'));
our $Not_there = '^\{"error":\{"code":"connection_not_found",'
                 . '"message":"There is no such connection"\}\}$';

add_block_preprocessor(\&NangoTest::prepare);

check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: there is one; without the directive nothing is known
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /gif', 'HEAD /gif', 'GET /none', 'GET /newest',
      'GET /refuse', 'GET /optional')
--- more_headers eval: ::headers((42) x 6)
--- error_code eval: ::codes((200) x 6)
--- raw_response_headers_like eval
::shows('c-1\|valid\|github', 'c-1\|valid\|github', '\|\|',
     ('c-1\|valid\|github') x 3)



=== TEST 2: none; another integration's; somebody else's; nobody
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /slack', 'GET /gif', 'GET /gif', 'GET /which?i=slack',
      'GET /which', 'GET /which?i=a%2fb')
--- more_headers eval: ::headers(42, 43, 'X-No: 1', 42, 42, 42)
--- error_code eval: ::codes(404, 404, 401, 404, 404, 404)
--- response_body_like eval
::bodies($::Not_there, $::Not_there, 'owner_required', ($::Not_there) x 3)
--- raw_response_headers_like eval
::shows(('\|\|') x 6)



=== TEST 3: invalid: with the id that nango_reconnect takes
--- config eval: $::Config
--- request eval
::steps(\@::Broken, 'GET /gif', 'GET /optional', 'GET /gif', 'HEAD /gif')
--- more_headers eval: ::headers(42, 42, 43, 42)
--- error_code eval: ::codes(409, 200, 404, 409)
--- response_body_like eval
::bodies(::invalid('c-1'), 'GIF', $::Not_there, '^$')
--- raw_response_headers_like eval
::shows('\|\|', 'c-1\|invalid\|github', '\|\|', '\|\|')



=== TEST 4: several: the newest, or none
--- config eval: $::Config
--- request eval
::steps(\@::Two, 'GET /gif', 'GET /newest', ('GET /refuse') x 2,
      'GET /optional')
--- more_headers eval: ::headers((42) x 5)
--- error_code eval: ::codes(200, 200, 409, 409, 200)
--- response_body_like eval
::bodies('GIF', 'GIF', ('"code":"connection_ambiguous"') x 2, 'GIF')
--- raw_response_headers_like eval
::shows(('c-2\|valid') x 2, ('\|\|') x 2, 'c-2\|valid')



=== TEST 5: the newest that is valid
--- config eval: $::Config
--- request eval
::steps(\@::Mixed, 'GET /gif', 'GET /newest', 'GET /refuse')
--- more_headers eval: ::headers((42) x 3)
--- error_code eval: ::codes(200, 200, 409)
--- raw_response_headers_like eval
::shows('c-1\|valid', 'c-1\|valid', '\|\|')



=== TEST 6: however many are newer and invalid
--- config eval: $::Config
--- request eval
::steps(\@::Many, 'GET /gif')
--- more_headers eval: ::headers(42)
--- error_code eval: ::codes(200)
--- raw_response_headers_like eval
::shows('c-1\|valid')



=== TEST 7: of several that are invalid the newest
--- config eval: $::Config
--- request eval
::steps(\@::Bad, 'GET /gif', 'GET /optional')
--- more_headers eval: ::headers(42, 42)
--- error_code eval: ::codes(409, 200)
--- response_body_like eval
::bodies(::invalid('c-2'), 'GIF')
--- raw_response_headers_like eval
::shows('\|\|', 'c-2\|invalid')



=== TEST 8: by its id; an empty one is none at all
--- config eval: $::Config
--- request eval
::steps(\@::Two, map { "GET /id$_" } '?id=' . ::id('prod', 'github', 'c-1'),
      '?id=' . uc(::id('prod', 'github', 'c-1')),
      '', '?id=', '?id=' . '0' x 32, '?id=c-1', '?id=' . 'z' x 32,
      '?id=' . ::id('prod', 'github', 'c-1') . '0',
      '?id=' . ::id('prod', 'github', 'c-9'),
      '?id=' . ::id('prod', 'slack', 'c-1'),
      '?id=' . ::id('prod', 'github', 'c-1'))
--- more_headers eval: ::headers((42) x 10, 43)
--- error_code eval: ::codes((200) x 4, (404) x 7)
--- raw_response_headers_like eval
::shows('c-1\|valid', 'c-1\|valid', 'c-2\|valid', 'c-2\|valid', ('\|\|') x 7)



=== TEST 9: the id of another integration of the caller's
--- config eval: $::Config
--- request eval
::steps([event('creation', 'true', 'c-1', end_user_id => '42',
             integration => 'slack')],
      'GET /id?id=' . ::id('prod', 'slack', 'c-1'),
      'GET /maybe?id=' . ::id('prod', 'slack', 'c-1'), 'GET /slack')
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(404, 200, 200)
--- raw_response_headers_like eval: ::shows('\|\|', '\|\|', 'c-1\|valid\|slack')



=== TEST 10: deleted
--- config eval: $::Config
--- request eval
::steps(\@::Gone, 'GET /gif', 'GET /optional',
      'GET /id?id=' . ::id('prod', 'github', 'c-1'))
--- more_headers eval: ::headers(42, 42, 42)
--- error_code eval: ::codes(404, 200, 404)
--- raw_response_headers_like eval: ::shows('\|\|', '\|\|', '\|\|')



=== TEST 11: optional: somebody else, nobody, an identity that can be no tag
--- config eval: $::Config
--- request eval
::steps(\@::One, 'GET /optional', 'GET /optional', 'GET /optional', 'GET /gif')
--- more_headers eval
::headers(43, 'X-No: 1', 'X-User: a' . 'x' x 255, 'X-User: a' . 'x' x 255)
--- error_code eval: ::codes(200, 200, 200, 400)
--- raw_response_headers_like eval: ::shows(('\|\|') x 4)



=== TEST 12: whatever answers: files, try_files, an upstream, error_page
--- config eval
$::Config . <<'EOF';
    location /files/ {
        nango_require github;
        alias html/;
    }
    location /try/ {
        nango_require github;
        try_files /nothing.here @named;
    }
    location /try2/ {
        nango_require github;
        try_files /nothing.here /none;
    }
    location @named {
        proxy_set_header X-Was "$nango_connection_id";
        rewrite ^ /echo break;
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT;
    }
    location @both {
        nango_require github;
        proxy_set_header X-Was "$nango_connection_id";
        rewrite ^ /echo break;
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT;
    }
    location /both/ {
        nango_require slack optional;
        try_files /nothing.here @both;
    }
    location = /up {
        nango_require github;
        proxy_set_header X-Was "$nango_connection_id";
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/echo;
    }
    location = /page {
        nango_require github;
        error_page 404 409 = @named;
        error_page 403 /none;
        empty_gif;
    }
    location = /echo { return 200 "was <$http_x_was>\n"; }
EOF
--- user_files
>>> a.txt
hello
--- request eval
::steps(\@::One, 'GET /files/a.txt', 'GET /files/a.txt', 'GET /try/x',
      'GET /try/x', 'GET /try2/x', 'GET /try2/x', 'GET /both/x', 'GET /both/x',
      'GET /up', 'GET /up', 'GET /page', 'GET /page')
--- more_headers eval: ::headers((42, 43) x 6)
--- error_code eval
::codes(200, 404, 200, 404, 200, 404, 200, 404, 200, 404, 200, 404)
--- response_body_like eval
::bodies('^hello', $::Not_there, '^was <>', $::Not_there, 'GIF', $::Not_there,
         '^was <c-1>', $::Not_there, '^was <c-1>', $::Not_there, 'GIF',
         $::Not_there)



=== TEST 13: after the checks of access, and with no part in "satisfy"
--- config eval
$::Config . <<'EOF';
    location /auth/ {
        auth_request      /verdict;
        auth_request_set  $user $upstream_http_x_who;
        nango_owner       end_user_id $user;
        nango_require     github;
        empty_gif;
    }
    location /any/ {
        satisfy           any;
        deny              all;
        auth_request      /verdict;
        auth_request_set  $user $upstream_http_x_who;
        nango_owner       end_user_id $user;
        nango_require     github;
        empty_gif;
    }
    location /open/ {
        satisfy           any;
        deny              all;
        auth_basic        x;
        auth_basic_user_file ../html/users;
        nango_require     github;
        empty_gif;
    }
    location = /verdict {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/who;
    }
    location = /who {
        add_header X-Who $http_x_may always;
        if ($http_x_may = "") { return 401; }
        return 200;
    }
EOF
--- user_files
>>> users
me:{PLAIN}pw
--- request eval
::steps(\@::One, 'GET /auth/', 'GET /auth/', 'GET /auth/', 'GET /any/',
      'GET /any/', 'GET /open/', 'GET /open/', 'GET /open/')
--- more_headers eval
::headers("X-May: 42\nX-User: 43", "X-May: 43\nX-User: 42", 42,
          "X-May: 42\nX-User: 43", 42, 42,
          "X-User: 42\nAuthorization: Basic bWU6cHc=",
          "X-User: 43\nAuthorization: Basic bWU6cHc=")
--- error_code eval: ::codes(200, 404, 401, 200, 401, 401, 200, 404)



=== TEST 14: in subrequests: of auth_request, of SSI, of a mirror
--- config eval
$::Config . <<'EOF';
    location /guarded/ {
        auth_request /has;
        auth_request_set $conn $upstream_http_x_was;
        add_header X-Conn "<$conn>" always;
        empty_gif;
    }
    location = /has {
        internal;
        nango_require github;
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/said;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Was "$nango_connection_id";
    }
    location = /said {
        add_header X-Was $http_x_was;
        return 200;
    }
    location /ssi/ {
        ssi on;
        alias html/;
    }
    location = /part {
        nango_require github;
        proxy_set_header X-Was "$nango_connection_id";
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/echo;
    }
    location = /mirrored {
        mirror /part;
        empty_gif;
    }
    location = /echo { return 200 "was <$http_x_was>"; }
EOF
--- user_files
>>> page.html
[<!--#include virtual="/part" -->]
--- request eval
::steps(\@::One, 'GET /guarded/x', 'GET /guarded/x', 'GET /ssi/page.html',
      'GET /ssi/page.html', 'GET /mirrored', 'GET /mirrored')
--- more_headers eval: ::headers(42, 43, 42, 43, 42, 43)
--- error_code eval: ::codes(200, 500, 200, 200, 200, 200)
--- response_body_like eval
::bodies('GIF', '500', '^\[was <c-1>\]', '^\[\{"error".*\}\]', 'GIF', 'GIF')



=== TEST 15: inherited, and another one below
--- config eval
$::Config . <<"EOF";
    location /a/ {
        nango_require github;
        empty_gif;
        location /a/b/ { empty_gif; }
        location /a/c/ { nango_require slack; empty_gif; }
        location /a/d/ {
            if (\$http_x_if) { $::Show }
            empty_gif;
        }
        location /a/e/ {
            limit_except GET { deny all; }
            empty_gif;
        }
    }
EOF
--- request eval
::steps(\@::One, 'GET /a/', 'GET /a/b/', 'GET /a/c/', 'GET /a/d/', 'GET /a/d/',
      'GET /a/e/', 'POST /a/e/')
--- more_headers eval
::headers(42, 42, 42, 42, "X-User: 42\nX-If: 1", 42, 42)
--- error_code eval: ::codes(200, 200, 404, 200, 200, 200, 403)
--- raw_response_headers_like eval
::shows('c-1', 'c-1', '\|\|', 'c-1', 'c-1', 'c-1', '\|\|')



=== TEST 16: in "if" alone
--- config eval
$::Config . <<'EOF';
    location /if {
        if ($http_x_if) { nango_require github; }
        empty_gif;
    }
EOF
--- request eval
::steps(\@::One, 'GET /if', 'GET /if', 'GET /if')
--- more_headers eval
::headers(43, "X-User: 43\nX-If: 1", "X-User: 42\nX-If: 1")
--- error_code eval: ::codes(200, 404, 200)



=== TEST 17: variables of what is not asked for are empty
--- config eval
$::Config . <<'EOF';
    location = /all {
        nango_require github;
        add_header X-All "<$nango_credential$nango_authorization$nango_credential_token$nango_config_subdomain>" always;
        empty_gif;
    }
    location = /rewritten {
        nango_require github;
        set $before "<$nango_connection_id>";
        add_header X-All "$before$nango_connection_id" always;
        empty_gif;
    }
    location = /without {
        return 200 "<$nango_credential$nango_authorization$nango_credential_token$nango_config_subdomain$nango_connection_id>";
    }
EOF
--- request eval
::steps(\@::One, 'GET /all', 'GET /rewritten', 'GET /without')
--- more_headers eval: ::headers(42, 42, 42)
--- raw_response_headers_like eval
[('') x @::Events, '', 'X-All: <>\r', 'X-All: <>c-1\r', '']
--- response_body_like eval
::bodies('GIF', 'GIF', '^<>$')



=== TEST 18: the same owner's of another environment
--- http_config eval
CORE::join "\n", 'nango_store nango_cache;', map { <<"EOF" } 'prod', 'twin';
    nango_environment $_ {
        api                 http://127.0.0.1:1;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$NangoTest::API_KEY;
        webhook_signing_key data:$NangoTest::KEY;
        reconcile           off;
    }
EOF
--- config eval
<<"EOF";
    nango_owner end_user_id \$http_x_user;
    $::Show
    location = /webhook { nango_webhook twin; }
    location = /connections { nango_connections prod; }
    location = /prod { nango_require prod github id=\$arg_id; empty_gif; }
    location = /twin { nango_require twin github id=\$arg_id; empty_gif; }
EOF
--- request eval
::steps(\@::One, 'GET /prod', 'GET /twin',
      map { ("GET /prod?id=$_", "GET /twin?id=$_") }
      ::id('twin', 'github', 'c-1'))
--- more_headers eval: ::headers((42) x 4)
--- error_code eval: ::codes(404, 200, 404, 200)
--- raw_response_headers_like eval
::shows('\|\|', 'c-1\|valid', '\|\|', 'c-1\|valid')



=== TEST 19: optional: several are none
--- config eval
$::Config . 'location = /several { nango_require github optional '
          . 'multiple=refuse; empty_gif; }'
--- request eval
::steps(\@::Two, 'GET /several', 'GET /several')
--- more_headers eval: ::headers(42, 43)
--- error_code eval: ::codes(200, 200)
--- raw_response_headers_like eval: ::shows('\|\|\r', '\|\|\r')



=== TEST 20: among many of other integrations
--- config eval: $::Config
--- request eval
::steps([(map { event('creation', 'true', "s-$_", end_user_id => '42',
                      integration => $_ % 2 ? 'slack' : "x-$_") } 1 .. 12),
         @::Mixed,
         (map { event('creation', 'true', "t-$_", end_user_id => '42',
                      integration => $_ % 2 ? 'slack' : "y-$_") } 1 .. 12)],
      'GET /gif', 'GET /slack', 'GET /which?i=y-2', 'GET /which?i=x-12',
      'GET /which?i=z')
--- more_headers eval: ::headers((42) x 5)
--- error_code eval: ::codes(200, 200, 200, 200, 404)
--- raw_response_headers_like eval
::shows('c-1\|valid', 't-11\|valid', 't-2\|valid', 's-12\|valid', '\|\|')
