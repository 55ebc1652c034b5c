package Test::Nginx::Prefix;

# The directory that nginx runs in ("nginx -p"): html, conf and logs, made
# anew for each start, and the configuration there.
#
# The configuration says what openresty's Test::Nginx has it say, for tests
# depend on it: the log level, the sizes, the location that serves html.

use v5.10.1;
use strict;
use warnings;

use base 'Exporter';

use File::Find ();
use File::Glob qw( :bsd_glob );
use File::Path qw( make_path remove_tree );

use Test::Nginx::Util;

our @EXPORT = qw( write_prefix write_user_files );


# A version is given for a reload: then nginx goes on in the directory, and
# tells that version once it has taken the new configuration.

sub write_prefix {
    my ($block, $config, $version) = @_;

    setup_server_root(defined $version);

    if (my $code = $block->post_setup_server_root) {
        eval_section($block, 'post_setup_server_root', $code);
    }

    write_user_files($block);
    write_config($block, $config, $version);
}


# Only what a run of nginx leaves is removed: should TEST_NGINX_SERVROOT
# point at something else, the rmdir fails and so does the test.

sub setup_server_root {
    my ($keep_running) = @_;

    if (-d $ServRoot) {
        remove_tree($Test::Nginx::Util::ConfDir,
                    glob("$ServRoot/*_cache"), glob("$ServRoot/*_temp"));

        if ($keep_running) {
            File::Find::find({ no_chdir => 1, wanted => sub {
                unlink $_
                    if !-d $_ && !/(?:\bnginx\.pid|\.sock|\.crt|\.key)$/;
            } }, $ServRoot);

        } else {
            remove_tree($Test::Nginx::Util::CacheDir,
                        $Test::Nginx::Util::HtmlDir,
                        $Test::Nginx::Util::LogDir);
            rmdir $ServRoot
                or bail_out "$ServRoot holds what is not ours: $!";
        }
    }

    for my $dir ($ServRoot, $Test::Nginx::Util::LogDir,
                 $Test::Nginx::Util::HtmlDir, $Test::Nginx::Util::ConfDir)
    {
        -d $dir or mkdir $dir or bail_out "$dir: $!";
    }

    write_file("$Test::Nginx::Util::HtmlDir/index.html",
               '<html><head><title>It works!</title></head>'
               . '<body>It works!</body></html>');
}


# Files as text, each after a line ">>> name [date]", or as a list of
# [name, content, date].

sub write_user_files ($) {
    my ($block) = @_;
    my $name = $block->name;

    my $files = $block->user_files or return;

    if (!ref $files) {
        my @list;

        for my $line (split /^/, $files) {
            if ($line =~ />>> (\S+)(?:\s+(.+))?/) {
                push @list, [$1, '', $2];

            } elsif (@list) {
                $list[-1][1] .= $line;
            }
        }

        $files = \@list;
    }

    bail_out "$name - user_files is neither text nor a list"
        if ref $files ne 'ARRAY';

    for my $file (@$files) {
        my ($path, $content, $date) = @$file;

        $path = "$Test::Nginx::Util::HtmlDir/$path" unless $path =~ m{^/};
        make_path($path =~ m{(.*)/});

        write_file($path, expand_env_in_text($content // '', $name,
                                             $Test::Nginx::Util::RandPorts));

        next unless $date;

        local $ENV{TZ} = 'GMT';
        system('touch', '-t', $date, $path) == 0
            or bail_out "$name - bad date of $path: $date";
    }
}


sub write_config {
    my ($block, $config, $version) = @_;
    my $name = $block->name;

    my %text = map {
        $_ => expand_env_in_text($block->$_ // '', $name,
                                 $Test::Nginx::Util::RandPorts)
    } qw( main_config http_config post_main_config error_log_file );

    $text{http_config} = $FilterHttpConfig->($text{http_config})
        if $FilterHttpConfig;

    my $error_log = $text{error_log_file} || $Test::Nginx::Util::ErrLogFile;
    my $user = $Test::Nginx::Util::WorkerUser // ($> == 0 ? 'root' : undef);

    # a reload without a master is the end of nginx
    master_on() if $Test::Nginx::Util::UseHup;

    my $daemon = $Test::Nginx::Util::UseValgrind ? 'off' : 'on';
    my $modules = join ' ', map { "load_module $_;" }
                  split ' ', expand_env_in_text(
                      $Test::Nginx::Util::LoadModules // '', $name,
                      $Test::Nginx::Util::RandPorts);

    # worth keeping in the workers' environment where they are set
    my $env = join "\n", map { /\s/ ? "env '$_';" : "env $_;" }
              @Test::Nginx::Util::EnvToNginx,
              qw( LD_PRELOAD LD_LIBRARY_PATH ASAN_OPTIONS );

    my $temp_paths = join ' ', map { "${_}_temp_path $ServRoot/${_}_temp;" }
        grep {
            Test::Nginx::Util::nginx_V() !~ /--without-http_${_}_module/
            && $text{http_config} !~ /\b${_}_temp_path\b/
        } qw( client_body proxy fastcgi scgi uwsgi );

    my $listen = $ServerPort;
    $listen .= ' reuseport' if $Test::Nginx::Util::ReusePort;

    my $server_name = $block->server_name // $ServerName;
    my $root_location = $Test::Nginx::Util::NoRootLocation ? '' : <<"END";
        location / {
            root $Test::Nginx::Util::HtmlDir;
            index index.html index.htm;
        }
END

    my $version_server = defined $version || $Test::Nginx::Util::UseHup
                         ? <<"END" : '';
    server {
        listen $listen;
        server_name 'Test-Nginx';

        location = /ver {
            return 200 '@{[ $version // '' ]}';
        }
    }
END

    my $event_type = $Test::Nginx::Util::EventType
                     ? "use $Test::Nginx::Util::EventType;" : '';
    my $user_line = defined $user ? "user $user;" : '';

    write_file($ConfFile, <<"END");
worker_processes $Test::Nginx::Util::Workers;
daemon $daemon;
master_process $Test::Nginx::Util::MasterProcessEnabled;
error_log $error_log $Test::Nginx::Util::LogLevel;
pid $PidFile;
$env

$modules $text{main_config}

http {
    access_log $Test::Nginx::Util::AccLogFile;
    $temp_paths

    default_type text/plain;
    keepalive_timeout 68000ms;

$text{http_config}
    server {
        listen $listen;
        server_name '$server_name';

        client_max_body_size 30M;

        # what the file asks for in every test
$Test::Nginx::Util::ConfigPreamble

        # what this test asks for
$config

$root_location    }
$version_server}

$text{post_main_config}

events {
    accept_mutex off;
    worker_connections $Test::Nginx::Util::WorkerConnections;
    $event_type
}

$user_line
END
}


sub write_file {
    my ($path, $content) = @_;

    open my $out, '>:raw', $path or bail_out "$path: $!";
    print $out $content;
    close $out or bail_out "$path: $!";
}


1;
