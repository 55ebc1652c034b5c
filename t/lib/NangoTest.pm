# What the tests of this module share: signatures, captured webhooks, the
# simulated Nango, and the configuration that most blocks want.
#
# It works with the real Test::Nginx and with the runner in t/lib/runner.  Use
# it before Test::Nginx::Socket, which reads its environment when it is
# loaded.

package NangoTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::SHA qw(hmac_sha256_hex);
use Exporter ();
use File::Basename qw(dirname);
use HTTP::Tiny;

our @ISA = qw(Exporter);
our @EXPORT = qw(
    $KEY $API_KEY capture_body capture_headers event fault hmac signature
    sim sim_start webhook
);

# The key that the captures are signed with, and one for the API.
our $KEY = '1e178f20-544e-4a7a-8f4a-309165e97254';
our $API_KEY = 'b3a1c0de-0000-4000-8000-00000000abcd';

my $T = abs_path(dirname(__FILE__) . '/..');
my @processes;

BEGIN {
    my $root = abs_path(dirname(__FILE__) . '/../..');
    my $built = "$root/build/debian-gcc-release/objs/"
                . 'ngx_http_nango_module.so';

    $ENV{TEST_NGINX_LOAD_MODULES} = $built
        if !defined $ENV{TEST_NGINX_LOAD_MODULES} && -e $built;

    $ENV{TEST_NGINX_T} = "$root/t";
    $ENV{TEST_NGINX_NANGO_API} = 'http://127.0.0.1:1'
        if !defined $ENV{TEST_NGINX_NANGO_API};
}


# Sections with "eval" are evaluated in Test::Base's own package.
sub import {
    NangoTest->export_to_level(1, @_);
    NangoTest->Exporter::export('Test::Base::Filter');
}


sub hmac {
    my ($body, $key) = @_;

    return hmac_sha256_hex($body, defined $key ? $key : $KEY);
}


# The header line of a signed body.
sub signature {
    my ($body, $key) = @_;

    return 'X-Nango-Hmac-Sha256: ' . hmac($body, $key);
}


# A POST of the body as Test::Nginx writes requests.
sub webhook {
    my ($body, $uri) = @_;

    return 'POST ' . (defined $uri ? $uri : '/webhook') . "\n" . $body;
}


# A small auth event: event('creation', 'true', 'conn-1', user => 42).
sub event {
    my ($operation, $success, $connection, %tags) = @_;

    my $integration = delete $tags{integration};
    my $error = delete $tags{error};

    $integration = 'github' if !defined $integration;

    my $text = join ',', map { qq("$_":"$tags{$_}") } sort keys %tags;

    return qq({"authMode":"OAUTH2","connectionId":"$connection",)
           . ($error ? qq("error":{"description":"$error","type":"failed"},)
                     : '')
           . qq("environment":"dev","from":"nango","operation":"$operation",)
           . qq("provider":"$integration","providerConfigKey":"$integration",)
           . qq("success":$success,"tags":{$text},"type":"auth"});
}


sub capture {
    my ($name) = @_;

    my $file = "$T/captures/$name.http";

    open my $in, '<:raw', $file or die "$file: $!";
    local $/;
    my $text = <$in>;
    close $in;

    my ($head, $body) = split /\r?\n\r?\n/, $text, 2;

    return ($head, $body);
}


sub capture_body {
    return (capture($_[0]))[1];
}


# The captured headers as more_headers takes them, without those that the
# client of the tests sends by itself.
sub capture_headers {
    my ($head) = capture($_[0]);

    my @lines = split /\r?\n/, $head;

    shift @lines;

    return join "\n", grep { !/^(host|connection|content-length):/i } @lines;
}


# A command to the simulator: sim('reset', '{}').
sub sim {
    my ($command, $json) = @_;

    my $answer = HTTP::Tiny->new(timeout => 10)->post(
        "$ENV{TEST_NGINX_NANGO_API}/_sim/$command",
        { headers => { 'Content-Type' => 'application/json' },
          content => defined $json ? $json : '{}' });

    die "the simulator: $answer->{status} $answer->{content}"
        if !$answer->{success};

    return $answer->{content};
}


# For "init": a fresh simulator with a fault for requests for sessions.
sub fault {
    my ($effect) = @_;

    sim('reset');
    sim('faults', '{"faults":[{"method":"POST","path":"/connect/sessions",'
                  . $effect . '}]}');
}


# Starts the simulated Nango and sets $TEST_NGINX_NANGO_API to its address.
sub sim_start {
    my (@options) = @_;

    # A copy, since $$ would be looked up in the child.
    my $parent = $$;

    my $pid = open my $out, '-|', 'node', "$T/sim/server.js", '--port', 0,
              '--parent', "$parent", '--api-key', $API_KEY,
              '--signing-key', $KEY, @options;

    die "the simulator could not be started: $!" if !$pid;

    # The handle as well: closing it would wait for the process.
    push @processes, { pid => $pid, out => $out };

    my $line = <$out>;

    die 'the simulator did not start' if !defined $line
        || $line !~ m{^listening on (http://\S+)};

    $ENV{TEST_NGINX_NANGO_API} = $1;

    return $1;
}


END {
    my $status = $?;

    kill 'TERM', $_->{pid} for @processes;
    close $_->{out} for @processes;

    $? = $status;
}


# The preamble that a block gets when it has no http_config of its own, and
# what no block's error log may hold unless it says that it expects it.

my $http_config = <<"EOF";
    nango_store nango_cache;

    nango_environment prod {
        api                 \$TEST_NGINX_NANGO_API;
        api_public          https://nango.example.com;
        connect_ui          https://connect.nango.dev;
        api_key             data:$API_KEY;
        webhook_signing_key data:$KEY;
        reconcile           off;
    }
EOF

my @never = ('[alert]', '[emerg]', '[crit]', 'AddressSanitizer',
             'LeakSanitizer', 'runtime error:', 'ThreadSanitizer');


sub prepare {
    my ($block) = @_;

    if (!defined $block->http_config) {
        $block->set_value('http_config', $http_config);
    }

    if (!defined $block->request && !defined $block->raw_request
        && !defined $block->pipelined_requests)
    {
        $block->set_value('request', 'GET /nothing');
        $block->set_value('error_code', '404')
            if !defined $block->error_code && !defined $block->must_die;
    }

    if (!defined $block->no_error_log && !defined $block->must_die) {

        my $expected = $block->error_log;

        $expected = join "\n", @$expected if ref $expected eq 'ARRAY';
        $expected = '' if !defined $expected;

        $block->set_value('no_error_log', join "\n",
            grep { index($expected, $_) < 0 } @never);
    }
}


1;
