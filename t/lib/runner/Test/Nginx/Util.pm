package Test::Nginx::Util;

# The settings of a run, and what every other file of the runner needs.
#
# Test files reach most of this by name: the functions through
# Test::Nginx::Socket, the variables as $Test::Nginx::Util::ServRoot and so
# on.  Names and defaults are therefore those of openresty's Test::Nginx.
#
# A fault is a failure that no section of a test asked about: an [alert] in
# the log, a server that is gone.  Faults do not print a test line, for that
# would upset `plan tests => N`; they are told as they occur and make the
# exit status non-zero, which prove counts as a failed file.
#
# Left out: LD_PRELOAD tricks, leak and benchmark modes, SystemTap, HTTP/2, 3.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use Carp qw( croak );
use File::Spec ();
use IO::Socket::INET ();
use Test::LongString;
use Test::More ();
use Time::HiRes qw( sleep );

our $NginxBinary         = $ENV{TEST_NGINX_BINARY} || 'nginx';
our $ServerPort          = $ENV{TEST_NGINX_SERVER_PORT}
                           || $ENV{TEST_NGINX_PORT} || 1984;
our $ServerPortForClient = $ENV{TEST_NGINX_CLIENT_PORT} || $ServerPort;
our $ServerAddr          = '127.0.0.1';
our $ServerName          = 'localhost';
our $Timeout             = $ENV{TEST_NGINX_TIMEOUT} || 3;
our $TestNginxSleep      = $ENV{TEST_NGINX_SLEEP} || 0.015;
our $Workers             = 1;
our $WorkerConnections   = 64;
our $LogLevel            = $ENV{TEST_NGINX_LOG_LEVEL} || 'debug';
our $RepeatEach          = 1;

our $LoadModules         = $ENV{TEST_NGINX_LOAD_MODULES};
our $EventType           = $ENV{TEST_NGINX_EVENT_TYPE};
our $ReusePort           = $ENV{TEST_NGINX_REUSE_PORT};
our $WorkerUser          = $ENV{TEST_NGINX_WORKER_USER};
our $UseValgrind         = $ENV{TEST_NGINX_USE_VALGRIND};
our $UseHup              = $ENV{TEST_NGINX_USE_HUP};
our $Verbose             = $ENV{TEST_NGINX_VERBOSE};
our $Randomize           = $ENV{TEST_NGINX_RANDOMIZE};
our $NoShuffle           = $ENV{TEST_NGINX_NO_SHUFFLE} || 0;
our $NoNginxManager      = $ENV{TEST_NGINX_NO_NGINX_MANAGER} || 0;
our $CheckAccumErrLog    = $ENV{TEST_NGINX_CHECK_ACCUM_ERR_LOG};
our $ForceRestartOnTest  = $ENV{TEST_NGINX_FORCE_RESTART_ON_TEST} // 1;
our $MasterProcessEnabled
                         = $ENV{TEST_NGINX_MASTER_PROCESS} || 'off';

our $NoLongString;
our $NoRootLocation = 0;
our $ConfigPreamble = '';
our $FilterHttpConfig;
our $NginxVersion;
our $OpenSSLVersion;
our $RandPorts = {};
our $PrevBlock;
our $ErrLogFilePos = 0;

our (@EnvToNginx, @BlockPreprocessors, @CleanupHandlers,
     @TestCleanupHandlers);

if ($Randomize) {
    $ServerPort = gen_rand_port({}) // die "no free port found\n";
    $ServerPortForClient = $ServerPort;
}

our $ServRoot = $Randomize
                ? File::Spec->rel2abs("t/servroot_$ServerPort")
                : $ENV{TEST_NGINX_SERVROOT}
                  || File::Spec->rel2abs('t/servroot');

$ENV{TEST_NGINX_SERVER_ROOT} = $ServRoot;

our $LogDir     = "$ServRoot/logs";
our $HtmlDir    = "$ServRoot/html";
our $ConfDir    = "$ServRoot/conf";
our $CacheDir   = "$ServRoot/cache";
our $ErrLogFile = "$LogDir/error.log";
our $AccLogFile = "$LogDir/access.log";
our $PidFile    = "$LogDir/nginx.pid";
our $ConfFile   = "$ConfDir/nginx.conf";


# Functions that read a setting, or set it when given a value.

my %accessor = (
    server_addr            => \$ServerAddr,
    server_name            => \$ServerName,
    server_port            => \$ServerPort,
    server_port_for_client => \$ServerPortForClient,
    timeout                => \$Timeout,
    repeat_each            => \$RepeatEach,
    workers                => \$Workers,
    worker_connections     => \$WorkerConnections,
    log_level              => \$LogLevel,
);

# Functions that give a setting one fixed value.

my %switch = (
    no_shuffle            => [\$NoShuffle, 1],
    no_long_string        => [\$NoLongString, 1],
    no_root_location      => [\$NoRootLocation, 1],
    no_nginx_manager      => [\$NoNginxManager, 1],
    use_hup               => [\$UseHup, 1],
    check_accum_error_log => [\$CheckAccumErrLog, 1],
    master_on             => [\$MasterProcessEnabled, 'on'],
    master_off            => [\$MasterProcessEnabled, 'off'],
);

# Functions that only tell.

my %constant = (
    html_dir    => \$HtmlDir,
    server_root => \$ServRoot,
    sleep_time  => \$TestNginxSleep,
    verbose     => \$Verbose,
);

{
    no strict 'refs';

    for my $name (keys %accessor) {
        my $ref = $accessor{$name};
        *$name = sub { $$ref = shift if @_; return $$ref };
    }

    for my $name (keys %switch) {
        my ($ref, $value) = @{ $switch{$name} };
        *$name = sub () { $$ref = $value; return };
    }

    for my $name (keys %constant) {
        my $ref = $constant{$name};
        *$name = sub () { $$ref };
    }
}

our @EXPORT = (
    keys %accessor, keys %switch, keys %constant,
    qw(
        $ServerAddr $ServerName $ServerPort $ServerPortForClient
        $ServRoot $ConfFile $PidFile $NginxVersion $NoLongString
        $NoNginxManager $RepeatEach $FilterHttpConfig
        master_process_enabled config_preamble env_to_nginx
        add_block_preprocessor add_cleanup_handler add_test_cleanup_handler
        bail_out fault expand_env_in_text parse_time parse_headers trim
        is_str is_running is_tcp_port_used get_pid_from_pidfile
        get_canon_version get_nginx_version error_log_data access_log_data
        eval_section
    )
);


my @Faults;


sub fault ($$) {
    my ($name, $message) = @_;

    push @Faults, "$name - $message";
    Test::More::diag("FAULT: $Faults[-1]");
}


sub faults () {
    return @Faults;
}


sub bail_out (@) {
    Test::More::BAIL_OUT(join '', @_);
}


sub master_process_enabled (@) {
    $MasterProcessEnabled = $_[0] ? 'on' : 'off' if @_;
    return $MasterProcessEnabled;
}


sub config_preamble ($) {
    $ConfigPreamble = shift;
}


sub env_to_nginx (@) {
    croak 'env_to_nginx: which variables?' unless @_;

    for (@_) {
        croak "env_to_nginx: not a variable: $_" if !/\A[A-Za-z_]/ || /\n/;
    }

    push @EnvToNginx, @_;
}


# The youngest preprocessor or handler runs first.

sub add_block_preprocessor (&) { unshift @BlockPreprocessors, shift }
sub add_cleanup_handler ($) { unshift @CleanupHandlers, shift }
sub add_test_cleanup_handler ($) { unshift @TestCleanupHandlers, shift }


# A zombie counts as gone: where the process that adopts nginx never reaps,
# kill(0) would take it for a running one for ever.

sub is_running ($) {
    my ($pid) = @_;

    return unless kill 0, $pid;

    my ($state) = process_stat($pid);
    return !defined $state || $state ne 'Z';
}


# The state, parent and start time of a process; nothing where /proc has none.

sub process_stat ($) {
    my ($pid) = @_;

    open my $in, '<', "/proc/$pid/stat" or return;
    my $line = <$in> // return;

    # the command's name, in parentheses, may hold anything
    $line =~ s/.*\)\s+//s;
    return (split ' ', $line)[0, 1, 19];
}


sub get_pid_from_pidfile ($) {
    my ($name) = @_;

    open my $in, '<', $PidFile
        or bail_out "$name - cannot read $PidFile: $!";
    my $pid = <$in> // '';
    chomp $pid;
    return $pid;
}


# Below the range from which the kernel takes ports of outgoing connections.

sub gen_rand_port {
    my ($used) = @_;

    for (1 .. 1000) {
        my $port = 10240 + int rand 22000;

        next if $used->{$port};

        return $port if IO::Socket::INET->new(
            LocalAddr => '127.0.0.1',
            LocalPort => $port,
            Listen    => 1,
        );
    }

    return;
}


sub is_tcp_port_used ($) {
    my ($port) = @_;

    open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my $hex = sprintf '%04X', $port;
    return scalar grep { /^\s*\d+: [0-9A-F]+:$hex / } <$in>;
}


# References (a pattern, a list) pass through as they are.

sub expand_env_in_text ($$$) {
    my ($text, $name, $ports) = @_;

    return $text if !defined $text || ref $text;

    my $value = sub {
        my ($var) = @_;

        if ($var =~ /^TEST_NGINX_RAND_PORT_[0-9]+$/) {
            return $ports->{$var} //= gen_rand_port({
                map { $_ => 1 } $ServerPort, grep { defined } values %$ports
            }) // bail_out "$name - no free port found for \$$var";
        }

        return $ENV{$var}
               // bail_out "$name - \$$var is not in the environment";
    };

    $text =~ s/\$(TEST_NGINX_[_A-Z0-9]+)/$value->($1)/eg;
    return $text;
}


sub parse_time ($) {
    my ($time) = @_;

    return $time unless defined $time;
    return $1 / 1000 if $time =~ /^(.*[^_a-zA-Z])ms$/;
    return $1 if $time =~ /^(.*[^_a-zA-Z])s$/;
    return $time;
}


# "! Name" asks that a header be absent: its value is undefined.

sub parse_headers ($) {
    my ($text) = @_;
    my %headers;

    for (split /\n/, $text // '') {
        s/^\s+|\s+$//g;
        next if $_ eq '';

        if (s/^!\s*//) {
            $headers{$_} = undef;
            next;
        }

        my ($key, $value) = split /\s*:\s*/, $_, 2;
        $headers{$key} = $value;
    }

    return \%headers;
}


sub trim ($) {
    my ($text) = @_;

    return unless defined $text;
    $text =~ s/^\s+|\s+$//g;
    $text =~ s/\s+/ /g;
    return $text;
}


sub is_str (@) {
    my ($got, $expected, $desc) = @_;

    return Test::More::like($got, $expected, $desc)
        if ref $expected eq 'Regexp';

    return Test::More::is($got, $expected, $desc) if $NoLongString;
    return is_string($got, $expected, $desc);
}


# Runs a section that holds Perl. The code may use what this package has,
# $block and $name.

sub eval_section ($$$) {
    my ($block, $section, $code) = @_;
    my $name = $block->name;

    my $result = eval $code;
    bail_out "$name - $section failed: $@" if $@;
    return $result;
}


# A version as a number that compares: 1.22.1 is 1.022001.

sub get_canon_version (@) {
    my ($major, $minor, $patch, $letter) = @_;

    my $version = sprintf '%d.%03d%03d', $major, $minor, $patch;
    $version .= sprintf '%03d', ord($letter) - ord('a') if defined $letter;
    return $version;
}


sub nginx_V () {
    state $out;

    return $out //= do {
        open my $pipe, '-|', "exec '$NginxBinary' -V 2>&1"
            or bail_out "cannot run $NginxBinary: $!";
        local $/;
        my $text = <$pipe> // '';
        close $pipe or bail_out "\"$NginxBinary -V\" failed: $text";
        $text;
    };
}


sub get_nginx_version () {
    my $out = nginx_V();

    $OpenSSLVersion = get_canon_version($1, $2, $3, $4)
        if $out =~ /built with OpenSSL (\d+)\.(\d+)\.(\d+)([a-z])?/;

    $out =~ m{\w/(\d+)\.(\d+)\.(\d+)}
        or bail_out "no version in \"$NginxBinary -V\": $out";

    return get_canon_version($1, $2, $3);
}


# The log phase runs after the response was sent: give it a moment.

sub access_log_data () {
    sleep $TestNginxSleep * 3;

    open my $in, '<', $AccLogFile or die "$AccLogFile: $!";
    return [<$in>];
}


# What was written since the last call, or all with check_accum_error_log.

sub error_log_data () {
    sleep $TestNginxSleep * 3;

    open my $in, '<', $ErrLogFile or return [];

    return [<$in>] if $CheckAccumErrLog;

    seek $in, $ErrLogFilePos, 0;
    my @lines = <$in>;
    $ErrLogFilePos = tell $in;
    return \@lines;
}


1;
