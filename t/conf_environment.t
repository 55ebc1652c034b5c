# nango_environment: what nginx -t finds.

use FindBin;
use lib "$FindBin::Bin/lib";
use NangoTest;
use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(\&NangoTest::prepare);
no_shuffle();
run_tests();

__DATA__

=== TEST 1: a name with other characters
--- http_config
    nango_environment "a b" { api_key data:k; }
--- config
--- must_die
--- error_log
invalid environment "a b"



=== TEST 2: defined twice
--- http_config
    nango_environment a { api_key data:k; }
    nango_environment a { api_key data:k; }
--- config
--- must_die
--- error_log
environment "a" is defined twice, first in



=== TEST 3: an unknown parameter
--- http_config
    nango_environment a { api_keys data:k; }
--- config
--- must_die
--- error_log
unknown parameter "api_keys" of an environment



=== TEST 4: too many arguments
--- http_config
    nango_environment a { api_key data:k data:l; }
--- config
--- must_die
--- error_log
invalid number of arguments in "api_key"



=== TEST 5: a parameter twice
--- http_config
    nango_environment a { api_key data:k; api_key data:k; }
--- config
--- must_die
--- error_log
"api_key" is duplicate



=== TEST 6: neither key
--- http_config
    nango_environment a { api_timeout 1s; }
--- config
--- must_die
--- error_log
environment "a" has neither an "api_key" nor a "webhook_signing_key"



=== TEST 7: a secret without its kind is not repeated in the log
--- http_config
    nango_environment a { api_key my-secret-itself; }
--- config
--- must_die
--- error_log
a secret must be written as "file:PATH", "env:NAME" or "data:VALUE"
--- no_error_log
my-secret-itself



=== TEST 8: a secret's file that is not there
--- http_config
    nango_environment a { api_key file:missing.key; }
--- config
--- must_die
--- error_log eval
qr/the secret's file ".*conf\/missing\.key" could not be opened \(2: No such/



=== TEST 9: a secret's file is relative to the configuration, and may be empty
--- user_files
>>> empty.key


--- http_config
    nango_environment a { api_key file:../html/empty.key; }
--- config
--- must_die
--- error_log
"file:../html/empty.key" holds no key



=== TEST 10: an environment variable that is not set
--- http_config
    nango_environment a { api_key env:NANGO_TEST_NOT_SET; }
--- config
--- must_die
--- error_log
the environment variable "NANGO_TEST_NOT_SET" is not set



=== TEST 11: a URL without a scheme
--- http_config
    nango_environment a { api api.nango.dev; api_key data:k; }
--- config
--- must_die
--- error_log
invalid URL "api.nango.dev"; it must begin with "https://" or "http://"



=== TEST 12: a URL without a host
--- http_config
    nango_environment a { api https:///x; api_key data:k; }
--- config
--- must_die
--- error_log
no host in URL "https:///x"



=== TEST 13: a URL with a user
--- http_config
    nango_environment a { api https://a@b/; api_key data:k; }
--- config
--- must_die
--- error_log
invalid URL "https://a@b/"



=== TEST 14: a time that is none
--- http_config
    nango_environment a { api_timeout soon; api_key data:k; }
--- config
--- must_die
--- error_log
invalid time "soon" in "api_timeout"



=== TEST 15: connections out of range
--- http_config
    nango_environment a { api_connections 0; api_key data:k; }
--- config
--- must_die
--- error_log
invalid number "0" of connections; 1 to 10000



=== TEST 16: a certificate that is not there
--- http_config
    nango_environment a { api_trusted_certificate no.pem; api_key data:k; }
--- config
--- must_die
--- error_log
no.pem" cannot be read (2: No such file



=== TEST 17: a flag that is none
--- http_config
    nango_environment a { api_verify maybe; api_key data:k; }
--- config
--- must_die
--- error_log
invalid value "maybe" in "api_verify"



=== TEST 18: a session format that is none
--- http_config
    nango_environment a { session_format new; api_key data:k; }
--- config
--- must_die
--- error_log
invalid session format "new"; it must be "tags", "end_user" or "both"



=== TEST 19: a private api without api_public is warned of
--- http_config
    nango_environment a { api http://10.1.2.3:3003; api_key data:k; }
--- config
--- error_log
browsers cannot reach the private "api" "http://10.1.2.3:3003"



=== TEST 20: a key in the clear is warned of
--- http_config
    nango_environment a { api http://nango.example.com; api_key data:k; }
--- config
--- error_log
crosses the network in the clear



=== TEST 21: api_verify off is warned of
--- http_config
    nango_environment a { api_verify off; api_key data:k; }
--- config
--- error_log
is not verified: whoever answers gets its API key



=== TEST 22: a key that is open to everybody is warned of
--- user_files
>>> open.key
k
--- http_config
    nango_environment a { api_key file:../html/open.key; }
--- config
--- error_log
is open to all users of this machine: chmod o-rwx it



=== TEST 23: several keys where one is asked with
--- user_files
>>> two.key
k
l
--- http_config
    nango_environment a { api_key file:../html/two.key; }
--- config
--- must_die
--- error_log
"api_key" has 2 keys; Nango's API is asked with one



=== TEST 24: a key that no key of Nango's looks like is not shown
--- http_config eval
"nango_environment a { api_key \"data:se\x01cret\"; }"
--- config
--- must_die
--- error_log
"data:..." holds a character that no key of Nango's has



=== TEST 25: an endpoint and no environment
--- http_config
    nango_store nango_cache;
--- config
    location = /s { nango_oauth_callback; }
--- must_die
--- error_log
"nango_oauth_callback" needs an environment: add a "nango_environment NAME



=== TEST 26: several environments and none named
--- http_config
    nango_environment a { api_key data:k; }
    nango_environment b { api_key data:k; }
--- config
    location = /s { nango_oauth_callback; }
--- must_die
--- error_log
there are 2 environments; name the one that is meant, as in "nango_oauth_callback a;"



=== TEST 27: an environment that is not there
--- http_config
    nango_environment a { api_key data:k; }
--- config
    location = /s { nango_oauth_callback b; }
--- must_die
--- error_log
there is no nango_environment "b"



=== TEST 28: a webhook's environment without a signing key
--- http_config
    nango_store nango_cache;
    nango_environment a { api_key data:k; }
--- config
    location = /webhook { nango_webhook; }
--- must_die
--- error_log
"nango_webhook" needs a "webhook_signing_key" in nango_environment "a"



=== TEST 29: a session's environment without an API key
--- http_config
    nango_environment a { webhook_signing_key data:k; }
--- config
    location = /session { nango_owner end_user_id $remote_user; nango_session; }
--- must_die
--- error_log
"nango_session" needs an "api_key" in nango_environment "a"



=== TEST 30: an api of its own without connect_ui is warned of
--- http_config
    nango_environment a { api https://nango.example.com; api_key data:k; }
--- config
--- error_log
has an "api" of its own and no "connect_ui"



=== TEST 31: a port that is none
--- http_config
    nango_environment a { api https://nango.example.com:65536; api_key data:k; }
--- config
--- must_die
--- error_log
invalid URL "https://nango.example.com:65536": it has an invalid port



=== TEST 32: an IPv6 address without an end
--- http_config
    nango_environment a { api_public 'https://[::1'; api_key data:k; }
--- config
--- must_die
--- error_log
invalid URL "https://[::1": it has an invalid IPv6 address



=== TEST 33: a variable in a URL
--- http_config
    nango_environment a { connect_ui 'https://$host/'; api_key data:k; }
--- config
--- must_die
--- error_log
invalid URL "https://$host/": it has an invalid host



=== TEST 34: hosts and ports as they may be
--- http_config
    nango_environment a {
        api        'http://[::1]:3003';
        api_public https://Nango_1.example.com:443/api;
        connect_ui http://127.0.0.1:1/x/;
        api_key    data:k;
    }
--- config
    location = /callback { nango_oauth_callback; }
--- request
GET /callback
--- error_code: 308
--- response_headers
Location: https://Nango_1.example.com:443/api/oauth/callback
