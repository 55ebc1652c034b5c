# nango_status: what it counts, in its three forms, and that it answers
# whatever the store is like.

use FindBin;
use lib "$FindBin::Bin/lib";
use Exposition;
use File::Temp qw( tempdir );
use JSON::PP;
use NangoTest;
use Test::Nginx::Socket 'no_plan';

# The check that follows can fail.

for my $bad ("a 1\n", "# HELP a_total x\n# TYPE a_total counter\na_total 1",
             "# HELP a x\n# TYPE a counter\na 1\n",
             "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n",
             "# HELP a x\n# TYPE a gauge\na{b=\"\"\"} 1\n",
             "# HELP a x\n# TYPE a gauge\na{b=\"\\t\"} 1\n",
             "# HELP a x\n# TYPE a gauge\na{b=\"\xff\"} 1\n",
             "# HELP a x\n# TYPE a gauge\na 1\na 2\n",
             "# HELP a x\n# TYPE a gauge\na one\n",
             "# HELP a x\n# TYPE a gauge\n",
             "# HELP a x\n# HELP a x\n# TYPE a gauge\na 1\n",
             "# TYPE a gauge\na 1\n",
             "# HELP a \\x\n# TYPE a gauge\na 1\n",
             "# HELP a x\n# TYPE a gauge\n# HELP b x\n# TYPE b gauge\n"
             . "a{c=\"1\"} 1\nb 1\na{c=\"2\"} 1\n")
{
    isnt(exposition($bad), 'good', 'found: ' . ($bad =~ s/\n/ | /gr));
}

is(exposition("# HELP a x\n# TYPE a gauge\na{b=\"\\\\\\\"\\n\",c=\"\"} 1.5\n"),
   'good', 'and what is good is good');


our $Config = <<'END';
    location = /status  { nango_status; }
    location = /webhook { nango_webhook max_body=1k; }
    location = /lost    { nango_webhook; limit_except GET { deny all; } }

    location = /connections {
        nango_owner end_user_id $http_x_user;
        nango_connections;
    }
END

our $Subscribers = <<"END";
    nango_store nango_cache size=16m;

    nango_environment prod {
        webhook_signing_key data:$KEY;
        deliver app  http://127.0.0.1:1/;
        deliver logs http://127.0.0.1:1/ types=sync;
    }
END

our $Created = event('creation', 'true', 'c-1', end_user_id => '42');

# Some members of the JSON.

sub ::only {
    my @paths = @_;

    return sub {
        my $json = JSON::PP->new->utf8->decode($_[0]);

        return join ' ', map {
            my $value = $json;

            for my $name (split /\./) {
                $value = ref $value eq 'ARRAY' ? $value->[$name]
                                               : $value->{$name};
            }

            "$_=" . (!defined $value ? 'null'
                     : JSON::PP::is_bool($value) ? ($value ? 'true' : 'false')
                                                 : $value)
        } @paths;
    };
}

# A store that has a file where its log should be.

sub closed {
    my $dir = tempdir('nango-XXXXXX', TMPDIR => 1, CLEANUP => 1);

    chmod 0755, $dir;
    mkdir "$dir/<b>\"&" or die "$dir: $!";

    open my $file, '>', "$dir/<b>\"&/log" or die "$dir: $!";
    close $file;

    return "$dir/<b>\"&";
}

# Some samples of Prometheus' text, and whether it is good.

sub ::samples {
    my @names = @_;

    return sub {
        my ($text) = @_;

        return join ' ', exposition($text),
            map { $text =~ /^\Q$_\E (\S+)$/m ? "$_ $1" : "no $_" } @names;
    };
}

add_block_preprocessor(\&NangoTest::prepare);
check_accum_error_log();
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: what was received is what was stored, a duplicate or refused
--- config eval: $::Config
--- request eval
[webhook($::Created), webhook($::Created), webhook($::Created),
 webhook($::Created), webhook('x' x 2000), 'GET /status']
--- more_headers eval
[signature($::Created), signature($::Created), signature($::Created, 'other'),
 'X-None: 1', signature('x' x 2000), 'X-None: 1']
--- response_body_filters eval
[([]) x 5, [::only(qw( webhooks.received webhooks.stored webhooks.duplicate
                       webhooks.refused refused.forged refused.unsigned
                       refused.too_large refused.unavailable refused.lost ))]]
--- response_body_like eval
[('.') x 5,
 '^webhooks.received=5 webhooks.stored=1 webhooks.duplicate=1 '
 . 'webhooks.refused=3 refused.forged=1 refused.unsigned=1 '
 . 'refused.too_large=1 refused.unavailable=0 refused.lost=0$']
--- error_code eval
[200, 200, 401, 401, 413, 200]



=== TEST 2: what another directive has answered is counted
--- config eval: $::Config
--- request eval
[webhook($::Created, '/lost'), 'GET /status']
--- more_headers eval
[signature($::Created), 'X-None: 1']
--- response_body_filters eval
[[], [::only(qw( webhooks.received webhooks.refused refused.lost ))]]
--- response_body_like eval
['.', '^webhooks.received=1 webhooks.refused=1 refused.lost=1$']
--- error_code eval
[403, 200]



=== TEST 3: a body that is none
--- config eval: $::Config
--- raw_request eval
"POST /webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
. signature('') . "\r\n\r\nxyz\r\n"
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_body



=== TEST 4: what the store has, once a list has waited for it
--- config eval: $::Config
--- request eval
[webhook($::Created), 'GET /connections', 'GET /status']
--- more_headers eval
[signature($::Created), 'X-User: 42', 'X-None: 1']
--- response_body_filters eval
[[], [], [::only(qw( version generation store.open store.troubled store.trouble
                 store.first store.last store.applied store.lag store.events
                 store.size events.folded events.effective connections.valid
                 connections.invalid environments.0.name
                 environments.0.stored environments.0.configured ))]]
--- response_body_like eval
['.', '"connections":\[\{', '^version=0.1.0 generation=1 store.open=true store.troubled=false '
      . 'store.trouble=null store.first=1 store.last=1 store.applied=1 '
      . 'store.lag=0 store.events=1 store.size=17179869184 events.folded=1 '
      . 'events.effective=1 connections.valid=1 connections.invalid=0 '
      . 'environments.0.name=prod environments.0.stored=1 '
      . 'environments.0.configured=true$']



=== TEST 5: JSON by default, and never stored by a cache
--- config eval: $::Config
--- request
GET /status
--- more_headers
Accept: */*
--- response_body_like chomp
^\{"version":
--- response_headers
Content-Type: application/json; charset=utf-8
Cache-Control: no-store



=== TEST 6: JSON for those who take it and text as well
--- config eval: $::Config
--- request
GET /status
--- more_headers
Accept: application/json, text/plain, */*
--- response_body_like chomp
^\{"version":



=== TEST 7: for Prometheus, by what it accepts
--- http_config eval: $::Subscribers
--- config eval: $::Config
--- request
GET /status
--- more_headers
Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1
--- response_headers
Content-Type: text/plain; version=0.0.4; charset=utf-8
Cache-Control: no-store
--- response_body_filters eval
[::samples('nango_build_info{version="0.1.0"}', 'nango_store_open',
           'nango_webhooks_total{result="stored"}',
           'nango_circuit_open{environment="prod"}',
           'nango_subscriber_configured{environment="prod",subscriber="app"}',
           'nango_subscriber_in_flight{environment="prod",subscriber="logs"}',
           'nango_log_size_bytes')]
--- response_body eval
'good nango_build_info{version="0.1.0"} 1 nango_store_open 1 '
. 'nango_webhooks_total{result="stored"} 0 '
. 'nango_circuit_open{environment="prod"} 0 '
. 'nango_subscriber_configured{environment="prod",subscriber="app"} 1 '
. 'nango_subscriber_in_flight{environment="prod",subscriber="logs"} 0 '
. 'nango_log_size_bytes 16777216'



=== TEST 8: or by name, whatever is accepted
--- config eval: $::Config
--- request
GET /status?format=prometheus
--- more_headers
Accept: application/json
--- response_body_filters eval
[::samples('nango_generation')]
--- response_body chomp
good no nango_generation



=== TEST 9: its order stays
--- config eval: $::Config
--- request eval
[('GET /status?format=prometheus') x 2]
--- response_body_filters eval
my $first;
my $order = sub { CORE::join ' ', $_[0] =~ /^(\w+(?:\{.*\})?) /mg };
my $kept = sub {
    my %in = map { $_ => 1 } CORE::split / /, $first;
    my $same = CORE::join ' ', CORE::grep { $in{$_} } CORE::split / /, $_[0];
    return $same eq $first && $first =~ / / ? 'same' : 'other';
};
[[$order, sub { $first = $_[0]; 'first' }], [$order, $kept]]
--- response_body eval
['first', 'same']



=== TEST 10: a page for browsers, without anything that runs or is loaded
--- http_config eval: $::Subscribers
--- config eval: $::Config
--- request
GET /status
--- more_headers
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
--- response_headers
Content-Type: text/html; charset=utf-8
Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'
--- response_body_like chomp
^<!DOCTYPE html>.*<th>prod / app</th>(?!.*<script)(?!.*(?:src|href)=)



=== TEST 11: a form that is none
--- config eval: $::Config
--- request
GET /status?format=xml
--- error_code: 400
--- response_headers
X-Nango-Error: invalid_body



=== TEST 12: HEAD
--- config eval: $::Config
--- request
HEAD /status
--- response_body chomp

--- response_headers
Content-Type: application/json; charset=utf-8



=== TEST 13: other methods
--- config eval: $::Config
--- request eval
["POST /status\n{}", 'DELETE /status', "PUT /status\n{}"]
--- error_code eval
[405, 405, 405]
--- response_headers eval
[("Allow: GET, HEAD") x 3]



=== TEST 14: what is owed is not told, not even that nothing is
--- http_config eval: $::Subscribers
--- config eval: $::Config
--- request eval
['GET /status?dead=1&subscriber=app', 'GET /status?waiting=1&subscriber=app']
--- error_code eval
[403, 403]
--- response_headers eval
[("X-Nango-Error: not_permitted") x 2]



=== TEST 15: without a store
--- http_config eval
"nango_environment prod { webhook_signing_key data:$KEY; }"
--- config
    location = /status { nango_status; }
--- request eval
['GET /status', 'GET /status?format=prometheus', 'GET /status?format=html']
--- response_body_filters eval
[[::only(qw( store webhooks.received connections.valid
             environments.0.stored ))],
 [::samples(qw( nango_store_open nango_log_events ))], []]
--- response_body_like eval
['^store=null webhooks.received=0 connections.valid=null '
 . 'environments.0.stored=null$',
 '^good nango_store_open 0 no nango_log_events$',
 '<th>open</th><td>no</td>.*<th>events</th><td>-</td>']



=== TEST 16: a store that cannot be opened, whose path is in the page as text
--- http_config eval
"nango_store '" . ::closed() . "'; nango_environment prod { "
. "webhook_signing_key data:$KEY; }"
--- config
    location = /status { nango_status; }
    location = /manage { nango_status manage; }
--- request eval
['GET /status', 'GET /manage', 'GET /manage?format=html',
 'GET /status?format=html', 'GET /status?format=prometheus']
--- response_body_filters eval
[[::only(qw( store.open store.troubled store.trouble.code
             store.trouble.message store.log ))],
 [::only(qw( store.open store.trouble.code store.trouble.message ))], [], [],
 [::samples(qw( nango_store_open nango_store_troubled ))]]
--- response_body_like eval
['^store.open=false store.troubled=true store.trouble.code=io '
 . 'store.trouble.message=null store.log=null$',
 '^store.open=false store.trouble.code=io '
 . 'store.trouble.message=.*<b>"&/log',
 'The store: io</strong> .*&lt;b&gt;&quot;&amp;/log(?!.*<b>)',
 'The store: io</strong></p>(?!.*/log)',
 '^good nango_store_open 0 nango_store_troubled 1$']
--- error_log
[crit]
webhooks are answered 503 meanwhile
