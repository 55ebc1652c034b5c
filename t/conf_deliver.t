# deliver in a nango_environment: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: without a URL
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app;
    }
--- config
--- must_die
--- error_log
"deliver" needs a name and a URL



=== TEST 2: a name with other characters
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver "a b" http://127.0.0.1/;
    }
--- config
--- must_die
--- error_log
invalid subscriber "a b"



=== TEST 3: no name
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver "" http://127.0.0.1/;
    }
--- config
--- must_die
--- error_log
the name of the subscriber has 1 to 64 characters



=== TEST 4: the same name twice
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/; deliver app http://127.0.0.1/;
    }
--- config
--- must_die
--- error_log
subscriber "app" of environment "prod" is defined twice, first in



=== TEST 5: another scheme
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app ftp://hidden.example/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" must begin with "https://" or "http://"
--- no_error_log
hidden.example



=== TEST 6: no host
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http:///path;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has no host



=== TEST 7: a host that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://a,b/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid host



=== TEST 8: an IPv6 address that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://[::g]/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid IPv6 address



=== TEST 9: an IPv6 address without an end
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://[::1/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid IPv6 address



=== TEST 10: something behind an IPv6 address
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://[::1]x/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid port



=== TEST 11: a port that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1:65536/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid port



=== TEST 12: a port without digits
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1:/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has an invalid port



=== TEST 13: a user in the URL is refused, and not repeated in the log
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://ann:hidden@127.0.0.1/;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" cannot have a user in it; use "header=Authorization:SECRET"
--- no_error_log
hidden



=== TEST 14: a variable
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/$host;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" cannot have variables in it



=== TEST 15: a fragment
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app "http://127.0.0.1/#top";
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" cannot have a fragment



=== TEST 16: a space
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app "http://127.0.0.1/a b";
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has a character that must be percent-encoded in it



=== TEST 17: a control character
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app "http://127.0.0.1/a\tb";
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" has a character that must be percent-encoded in it



=== TEST 18: a unix socket without a path
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://unix::/path;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" must be written as "http://unix:/run/app.sock:/path"



=== TEST 19: a unix socket's relative path
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://unix:run/app.sock:/path;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" must be written as "http://unix:/run/app.sock:/path"



=== TEST 20: a unix socket with a relative URL
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://unix:/run/app.sock:path;
    }
--- config
--- must_die
--- error_log
the URL of subscriber "app" must be written as "http://unix:/run/app.sock:/path"



=== TEST 21: a unix socket whose path is too long
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:/path;
    }
--- config
--- must_die
--- error_log
the socket's path in the URL of subscriber "app" is too long



=== TEST 22: an option without a value, perhaps a secret
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ hidden;
    }
--- config
--- must_die
--- error_log
an option of "deliver" is written as "name=value"
--- no_error_log
hidden



=== TEST 23: an option that is not known, perhaps with a secret
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ headers=Key:data:hidden;
    }
--- config
--- must_die
--- error_log
unknown option "headers=" of "deliver"
--- no_error_log
hidden



=== TEST 24: an option twice
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ timeout=1s timeout=2s;
    }
--- config
--- must_die
--- error_log
"timeout=" is duplicate



=== TEST 25: a type that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ types=auth,syncs;
    }
--- config
--- must_die
--- error_log
invalid type "syncs"; there are auth, sync, async_action, forward and other



=== TEST 26: no type
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ types=;
    }
--- config
--- must_die
--- error_log
invalid type ""



=== TEST 27: a timeout that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ timeout=soon;
    }
--- config
--- must_die
--- error_log
invalid time "soon" in "deliver"



=== TEST 28: a connect_timeout of zero
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ connect_timeout=0;
    }
--- config
--- must_die
--- error_log
invalid time "0" in "deliver"



=== TEST 29: a max_age that is none
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ max_age=-1;
    }
--- config
--- must_die
--- error_log
invalid time "-1" in "deliver"



=== TEST 30: no concurrency
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ concurrency=0;
    }
--- config
--- must_die
--- error_log
invalid number "0" of concurrent deliveries; 1 to 1024



=== TEST 31: too much concurrency
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ concurrency=1025;
    }
--- config
--- must_die
--- error_log
invalid number "1025" of concurrent deliveries; 1 to 1024



=== TEST 32: repairs that are neither on nor off
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ repairs=yes;
    }
--- config
--- must_die
--- error_log
invalid value "yes" in "deliver"; it must be "on" or "off"



=== TEST 33: verify that is neither on nor off
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app https://127.0.0.1/ verify=;
    }
--- config
--- must_die
--- error_log
invalid value "" in "deliver"; it must be "on" or "off"



=== TEST 34: from something else
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ from=here;
    }
--- config
--- must_die
--- error_log
invalid value "here" in "deliver"; it must be "from=start" or "from=now"



=== TEST 35: a header without a secret
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=hidden;
    }
--- config
--- must_die
--- error_log
a header is written as "header=Name:SECRET"
--- no_error_log
hidden



=== TEST 36: a header without a name
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=:data:hidden;
    }
--- config
--- must_die
--- error_log
the header "" has no name
--- no_error_log
hidden



=== TEST 37: a header's name with other characters
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ "header=A B:data:hidden";
    }
--- config
--- must_die
--- error_log
the header "A B" has a character that is in no header's name
--- no_error_log
hidden



=== TEST 38: a header of our own
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=x-NANGO-Edge-Sequence:data:1;
    }
--- config
--- must_die
--- error_log
the header "x-NANGO-Edge-Sequence" is one of those that deliveries have by themselves



=== TEST 39: a header that frames
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=Content-Length:data:1;
    }
--- config
--- must_die
--- error_log
the header "Content-Length" is one of those that deliveries have by themselves



=== TEST 40: a header twice
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=Key:data:a header=KEY:data:b;
    }
--- config
--- must_die
--- error_log
the header "KEY" is duplicate



=== TEST 41: a secret without its kind is not repeated in the log
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=Key:hidden;
    }
--- config
--- must_die
--- error_log
a secret must be written as "file:PATH", "env:NAME" or "data:VALUE"
--- no_error_log
hidden



=== TEST 42: a secret with a line break in it
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ "header=Key:data:hidden\nvalue";
    }
--- config
--- must_die
--- error_log
the secret of the header "Key" has 2 lines; a header has one value
--- no_error_log
hidden



=== TEST 43: a secret with a control character in it
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ "header=Key:data:hid\tden\r\n";
    }
--- config
--- must_die
--- error_log
"data:..." holds a character
--- no_error_log
hid\tden



=== TEST 44: an empty secret
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=Key:data:;
    }
--- config
--- must_die
--- error_log
"data:..." holds no key



=== TEST 45: CA certificates that are not there
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app https://127.0.0.1/ trusted_certificate=no.pem;
    }
--- config
--- must_die
--- error_log eval
qr/the certificate's file ".*conf\/no\.pem" cannot be read \(2: No such/



=== TEST 46: a secret's file with two lines
--- user_files
>>> two.key
first-hidden
second-hidden
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ header=Key:file:../html/two.key;
    }
--- config
--- must_die
--- error_log
the secret of the header "Key" has 2 lines; a header has one value
--- no_error_log
-hidden



=== TEST 47: without a store, wherever that would be
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/;
    }
--- config
--- must_die
--- error_log eval
qr/"deliver" needs a store: add "nango_store PATH;" to the http block in .*nginx\.conf:\d+/



=== TEST 48: everything at once, and another of the same name elsewhere
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app https://app.example.com:8443/hooks?from=nango
                types=auth,sync,async_action,forward,other timeout=1m
                connect_timeout=500ms concurrency=1024 max_age=30d
                repairs=off from=start header=Authorization:data:secret-one
                header=X-Key:data:secret-two header=Host:data:inner.example
                verify=on;
        deliver six  http://[::1]:8080;
        deliver unix http://unix:/run/app.sock:/hooks;
        deliver sock https://unix:/run/app.sock;
    }
    nango_store nango_cache;
    nango_environment other {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/;
    }
--- config
--- no_error_log
[warn]
secret-
--- request
GET /nothing
--- error_code: 404



=== TEST 49: an upstream of that name is not used
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://Backend:8080/hooks;
    }
    nango_store nango_cache;
    upstream backend { server 127.0.0.1:1; }
--- config
--- error_log
the host in the URL of subscriber "app" is also the name of an "upstream"
--- request
GET /nothing
--- error_code: 404



=== TEST 50: nor does another's name matter
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://backends/hooks;
    }
    nango_store nango_cache;
    upstream backend { server 127.0.0.1:1; }
--- config
--- no_error_log
[warn]
--- request
GET /nothing
--- error_code: 404



=== TEST 51: secrets in the clear
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://app.example.com/ header=Key:data:hidden;
    }
    nango_store nango_cache;
--- config
--- error_log
the secrets in the headers for subscriber "app" cross the network in the clear
--- no_error_log
hidden
--- request
GET /nothing
--- error_code: 404



=== TEST 52: secrets that stay inside
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver one http://10.1.2.3/ header=Key:data:k;
        deliver two http://unix:/run/app.sock:/ header=Key:data:k;
        deliver three http://app:8080/ header=Key:data:k;
        deliver four http://app?a.b header=Key:data:k;
    }
    nango_store nango_cache;
--- config
--- no_error_log
[warn]
--- request
GET /nothing
--- error_code: 404



=== TEST 53: nothing to say in the clear but events
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://app.example.com/;
    }
    nango_store nango_cache;
--- config
--- no_error_log
[warn]
--- request
GET /nothing
--- error_code: 404



=== TEST 54: a certificate that is not verified
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app https://app.example.com/ verify=off header=Key:data:k;
    }
    nango_store nango_cache;
--- config
--- error_log
the certificate of subscriber "app" is not verified: whoever answers gets its events and secrets
--- request
GET /nothing
--- error_code: 404



=== TEST 55: no certificate to verify
--- http_config
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1/ verify=off;
    }
    nango_store nango_cache;
--- config
--- error_log
the URL of subscriber "app" is no https; there is no certificate to verify
--- request
GET /nothing
--- error_code: 404



=== TEST 56: an environment without events
--- http_config
    nango_environment prod {
        api http://127.0.0.1:1; api_public http://127.0.0.1:1;
        connect_ui http://127.0.0.1:1; api_key data:k; reconcile off;
        deliver app http://127.0.0.1/;
    }
    nango_store nango_cache;
--- config
--- error_log
environment "prod" has neither a "webhook_signing_key" nor "reconcile", so there is nothing to deliver
--- request
GET /nothing
--- error_code: 404



=== TEST 57: an environment with repairs only
--- http_config
    nango_environment prod {
        api http://127.0.0.1:1; api_public http://127.0.0.1:1;
        connect_ui http://127.0.0.1:1; api_key data:k;
        deliver app http://127.0.0.1/;
    }
    nango_store nango_cache;
--- config
--- no_error_log
[warn]
--- request
GET /nothing
--- error_code: 404



=== TEST 58: what proxy_pass makes of an address is no upstream
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app http://127.0.0.1:1/;
    }
--- config
    location = /app { proxy_pass http://127.0.0.1:1; }
--- no_error_log
[warn]
--- request
GET /nothing
--- error_code: 404



=== TEST 59: CA certificates that are a directory
--- http_config
    nango_store nango_cache;
    nango_environment prod {
        webhook_signing_key data:k;
        deliver app https://127.0.0.1/ trusted_certificate=;
    }
--- config
--- must_die
--- error_log eval
qr/the certificate's file ".*conf\/" is not a regular file/
