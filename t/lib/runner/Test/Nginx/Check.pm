package Test::Nginx::Check;

# What a test says of a response and of the logs, as assertions: for each
# section a fixed number of them, which test files count on in their plans.
#
# Beyond what tests say, every line of the error log is looked at once, also
# those that the server writes while it stops: an [alert], an [emerg], a
# [crit], a failed assertion or a sanitizer's report is a fault, unless a
# section of that test matches the line.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use Digest::MD5 ();
use Digest::SHA ();
use Test::LongString;
use Test::More import => [qw( is like unlike ok pass fail )];

use Test::Nginx::Util;

our @EXPORT = qw(
    check_response check_error_log check_access_log check_shutdown_error_log
    watch_error_log restart_watch @ResponseBodyChecks
);

our @ResponseBodyChecks;

my $severe = qr/\[(?:alert|emerg|crit)\]/;
my $report = qr/(?:Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer
                |runtime\ error:
                |\bAssertion\ .*?failed\b/x;

# How far each log has been watched: path => offset.
my %watched;


# The value meant for one of several requests. Where there is one request,
# a plain value will do.

sub indexed {
    my ($block, $section, $index, $several) = @_;

    my $value = $block->$section;
    return $value->[$index] if ref $value eq 'ARRAY';

    bail_out $block->name . " - $section must be a list: there are several"
             . ' requests' if $several;

    return $value;
}


# $res may be undefined, when what came was no response; $repeat counts how
# often the block has been run.

sub check_response ($$$$$$) {
    my ($block, $res, $header, $index, $several, $repeat) = @_;

    my @which = ($index, $several);

    check_code($block, $res, @which);
    check_headers($block, $res, $header // '', @which);
    filter_body($block, $res, $index);
    check_body($block, $res, "(repeat $repeat, request $index)", @which);

    for my $check (@ResponseBodyChecks) {
        $check->($block, $res ? $res->content : undef, $index, $repeat, 0);
    }
}


sub check_code {
    my ($block, $res, @which) = @_;

    my $code = $res && $res->code || '';
    my $desc = $block->name . ' - status';

    if (defined $block->error_code_like) {
        my $pattern = indexed($block, 'error_code_like', @which);
        like($code, qr/$pattern/sm, $desc);
        return;
    }

    is($code, defined $block->error_code
              ? indexed($block, 'error_code', @which) : 200, $desc);
}


sub check_headers {
    my ($block, $res, $raw, @which) = @_;
    my $name = $block->name;

    if (defined $block->raw_response_headers_like) {
        my $pattern = indexed($block, 'raw_response_headers_like', @which);
        like($raw, qr/$pattern/s, "$name - raw header like");
    }

    if (defined $block->raw_response_headers_unlike) {
        my $pattern = indexed($block, 'raw_response_headers_unlike', @which);
        unlike($raw, qr/$pattern/s, "$name - raw header unlike");
    }

    if (defined $block->response_headers) {
        my $expected
            = parse_headers(indexed($block, 'response_headers', @which));

        for my $key (sort keys %$expected) {
            my $value = with_ports($expected->{$key});

            if (!defined $value) {
                unlike($raw, qr/^\s*\Q$key\E\s*:/m, "$name - no header $key");
                next;
            }

            is(header_of($res, $key), $value, "$name - header $key");
        }

    } elsif (defined $block->response_headers_like) {
        my $expected
            = parse_headers(indexed($block, 'response_headers_like', @which));

        for my $key (sort keys %$expected) {
            my $pattern = $expected->{$key} // '';
            like(header_of($res, $key), qr/^$pattern$/,
                 "$name - header $key like");
        }
    }
}


sub header_of {
    my ($res, $key) = @_;

    my $value = $res ? $res->header($key) : undef;
    return $value // '';
}


sub with_ports {
    my ($text) = @_;

    return $text if !defined $text || ref $text;

    $text =~ s/\$ServerPort\b/$ServerPort/g;
    $text =~ s/\$ServerPortForClient\b/$ServerPortForClient/g;
    return $text;
}


# response_body_filters: names or functions, or a list of such lists, one for
# each request.

sub filter_body {
    my ($block, $res, $index) = @_;
    my $name = $block->name;

    my $filters = $block->response_body_filters;
    return unless defined $filters && $res;

    $filters = ref $filters ? [$filters] : [split ' ', $filters]
        if ref $filters ne 'ARRAY';
    $filters = $filters->[$index] // bail_out "$name - no filter for $index"
        if ref $filters->[0] eq 'ARRAY';

    my %named = (
        md5_hex  => \&Digest::MD5::md5_hex,
        sha1_hex => \&Digest::SHA::sha1_hex,
        uc       => sub { uc $_[0] },
        lc       => sub { lc $_[0] },
        ucfirst  => sub { ucfirst $_[0] },
        lcfirst  => sub { lcfirst $_[0] },
        length   => sub { length $_[0] },
    );

    my $body = $res->content // '';

    for my $filter (@$filters) {
        my $code = ref $filter eq 'CODE' ? $filter : $named{$filter}
            // bail_out "$name - no such filter: $filter";
        $body = $code->($body);
    }

    $res->content($body);
}


sub check_body {
    my ($block, $res, $which, @which) = @_;
    my $name = $block->name;

    my $body = $res ? $res->content : undef;

    if (defined $block->response_body) {
        $body = sorted_json($body) if defined $block->response_body_json_sort;

        my $expected = expand_env_in_text(
            with_ports(indexed($block, 'response_body', @which)),
            $name, $Test::Nginx::Util::RandPorts);

        is_str($body, $expected, "$name - body $which");
        return;
    }

    for my $kind (qw( like unlike )) {
        my $section = "response_body_$kind";
        next unless defined $block->$section;

        # as text, so that ports are put into patterns, too
        my $pattern = with_ports('' . indexed($block, $section, @which));
        my $check = $kind eq 'like' ? \&like : \&unlike;

        $check->($body, qr/$pattern/s, "$name - body $kind $which");
        return;
    }
}


sub sorted_json {
    my ($text) = @_;

    require JSON::PP;
    my $json = JSON::PP->new->canonical->loose;

    my $sorted = eval { $json->encode($json->decode($text)) . "\n" };
    return $sorted // $text;
}


# Sections of patterns: one qr//, a list, or text with one string a line.

sub patterns {
    my ($value) = @_;

    return if !defined $value;
    return grep { defined } @$value if ref $value eq 'ARRAY';
    return $value if ref $value;
    return split /\n+/, $value =~ s/\n\z//r;
}


sub matches {
    my ($line, $pattern) = @_;

    return ref $pattern && $line =~ $pattern || $line =~ /\Q$pattern\E/;
}


# One assertion for each pattern.

sub check_lines {
    my ($name, $section, $value, $lines) = @_;

    for my $pattern (patterns($value)) {
        my @found = grep { matches($_, $pattern) } @$lines;

        if ($section =~ /^no_/) {
            ok(!@found, "$name - $section: $pattern")
                or Test::More::diag(join '', 'found: ', @found);

        } else {
            ok(scalar @found, "$name - $section: $pattern");
        }
    }
}


# What the log has got; what is asked for may come later than the response.

sub awaited_lines {
    my ($block) = @_;

    my $lines = error_log_data();
    my $deadline = time + 3;

    for my $pattern (patterns(scalar $block->error_log)) {
        until (grep { matches($_, $pattern) } @$lines or time > $deadline) {
            my $more = error_log_data();

            $lines = $Test::Nginx::Util::CheckAccumErrLog
                     ? $more : [@$lines, @$more];
        }
    }

    return $lines;
}


sub check_error_log ($$) {
    my ($block, $repeat) = @_;
    my $name = "@{[ $block->name ]} - repeat $repeat";

    # read even where nothing is asked: the next look begins where this ends
    my $lines = awaited_lines($block);

    my $grep = $block->grep_error_log;
    my $expected = $block->grep_error_log_out;

    bail_out "$name - grep_error_log and grep_error_log_out need each other"
        if defined $grep != defined $expected;

    if (defined $grep) {
        $grep = $grep->[$repeat] if ref $grep eq 'ARRAY';
        $expected = $expected->[$repeat] if ref $expected eq 'ARRAY';
        $expected = expand_env_in_text($expected, $name,
                                       $Test::Nginx::Util::RandPorts);

        if (defined $grep) {
            my $pattern = ref $grep ? $grep : qr/\Q$grep\E/;
            my @found = grep { !/\n/ } map { /$pattern/ ? $& : () } @$lines;

            is_str(join('', map { "$_\n" } @found), $expected,
                   "$name - grep_error_log_out");
        }
    }

    check_lines($name, $_, scalar $block->$_, $lines)
        for qw( error_log no_error_log );
}


sub check_access_log ($) {
    my ($block) = @_;

    for my $section (qw( access_log no_access_log )) {
        my $value = $block->$section // next;
        check_lines($block->name, $section, $value, access_log_data());
    }
}


# For the time after the last check of the block: the server has stopped.

sub check_shutdown_error_log ($) {
    my ($block) = @_;

    my @sections = grep { defined $block->$_ }
                   qw( shutdown_error_log no_shutdown_error_log );
    return unless @sections;

    my $dry = $Test::Nginx::Util::UseHup || $ENV{TEST_NGINX_NO_CLEAN};
    my $lines = $dry ? [] : error_log_data();

    for my $section (@sections) {
        my $value = $block->$section;

        if (!$dry) {
            check_lines($block->name, $section, $value, $lines);
            next;
        }

        my $count = () = patterns($value);
        SKIP: { Test::More::skip("$section: nginx goes on", $count) }
    }
}


# The log files are new.

sub restart_watch () {
    %watched = ();
}


# Looks at what the log has got since the last look, in the name of the block
# that ran meanwhile.

sub watch_error_log ($) {
    my ($block) = @_;

    my @files = ($Test::Nginx::Util::ErrLogFile);

    if (my $file = $block->error_log_file) {
        $file = expand_env_in_text($file, $block->name,
                                   $Test::Nginx::Util::RandPorts);
        push @files, $file if -f $file && $file ne $files[0];
    }

    my @expected = map { patterns(scalar $block->$_) }
                   qw( error_log grep_error_log shutdown_error_log );

    for my $file (@files) {
        open my $in, '<', $file or next;
        seek $in, $watched{$file} // 0, 0;

        while (my $line = <$in>) {
            next unless $line =~ $severe && !defined $block->must_die
                        || $line =~ $report;
            next if grep { matches($line, $_) } @expected;

            chomp $line;
            fault($block->name, "in the error log: $line");
        }

        $watched{$file} = tell $in;
    }
}


1;
