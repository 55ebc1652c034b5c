-- The same webhook again and again, with the headers that a delivery has.
--
--     wrk -s straight.lua URL -- BODY HMAC

function init(args)
    request_text = wrk.format("POST", nil, {
        ["Content-Type"] = "application/json",
        ["User-Agent"] = "nango/0.71.4 (linux/6.18; node.js/22.22.2)",
        ["Accept"] = "*/*",
        ["X-Nango-Hmac-Sha256"] = args[2],
        ["X-Nango-Edge-Sequence"] = "123456",
        ["X-Nango-Edge-Attempt"] = "1",
        ["X-Nango-Edge-Received-At"] = "2026-01-02T03:04:05.678Z",
        ["X-Nango-Edge-Environment"] = "bench",
        ["X-Nango-Edge-Source"] = "nango",
        ["X-Nango-Edge-Owner"] = "end_user_id=user-42",
    }, args[1])
end

function request()
    return request_text
end

function done(summary, latency, requests)
    local e = summary.errors

    io.write(string.format("RESULT %.0f %d\n",
        summary.requests / (summary.duration / 1e6),
        e.status + e.connect + e.read + e.write + e.timeout))
end
