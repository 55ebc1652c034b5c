-- Signed webhooks for wrk, all different, about 520 bytes each, as Nango
-- builds them.  The signature comes from libcrypto, through LuaJIT's ffi, so
-- that making a request costs the same microsecond whatever is measured.
--
--     wrk -s post.lua URL -- webhook|session RUN

local ffi = require "ffi"

ffi.cdef [[
    const void *EVP_sha256(void);
    unsigned char *HMAC(const void *md, const void *key, int key_len,
        const unsigned char *d, size_t n, unsigned char *out,
        unsigned int *out_len);
]]

local crypto = ffi.load("libcrypto.so.3")
local sha256 = crypto.EVP_sha256()
local key = "1e178f20-544e-4a7a-8f4a-309165e97254"
local mac = ffi.new("unsigned char[32]")
local len = ffi.new("unsigned int[1]")

local threads = 0

function setup(thread)
    threads = threads + 1
    thread:set("id", threads)
end

local hex = {}
for i = 0, 255 do hex[i] = string.format("%02x", i) end

local function sign(body)
    crypto.HMAC(sha256, key, #key, body, #body, mac, len)

    local t = {}
    for i = 0, 31 do t[i + 1] = hex[mac[i]] end

    return table.concat(t)
end

local n = 0
local kind, run

function init(args)
    kind = args[1] or "webhook"
    run = args[2] or "0"
end

local before = '{"authMode":"API_KEY","connectionId":"'
local after = '","endUser":{"endUserEmail":"ann@example.com","endUserId":"user'
    .. '-42","organizationId":"org-7","tags":{"plan":"pro"}},"environment":"'
    .. 'dev","from":"nango","operation":"creation","provider":"airtable-pat"'
    .. ',"providerConfigKey":"test-apikey","success":true,"tags":{"end_user_'
    .. 'display_name":"Ann","end_user_email":"ann@example.com","end_user_id"'
    .. ':"user-%d","organization_display_name":"Org Seven","organization_id"'
    .. ':"org-%d","plan":"pro"},"type":"auth"}'

local headers = {
    ["Content-Type"] = "application/json",
    ["User-Agent"] = "nango/0.71.4 (linux/6.18; node.js/22.22.2)",
    ["Accept"] = "application/json, text/plain, */*",
}

function request()
    if kind == "session" then
        headers["X-User"] = "user-" .. n % 1000
        n = n + 1
        return wrk.format("POST", nil, headers, "")
    end

    n = n + 1

    local body = before
        .. string.format("%s-%d-%012d-4f3e-9a1b-0c2d3e4f5a6b", run, id, n)
        .. string.format(after, n % 50000, n % 500)

    headers["X-Nango-Hmac-Sha256"] = sign(body)

    return wrk.format("POST", nil, headers, body)
end

function done(summary, latency, requests)
    local e = summary.errors

    io.write(string.format("RESULT %.0f %d %d %d %d %d\n",
        summary.requests / (summary.duration / 1e6),
        latency:percentile(50), latency:percentile(99),
        e.status, e.connect + e.read + e.write + e.timeout,
        summary.requests))
end
