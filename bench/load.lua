-- What wrk does with its threads: each has one connection, and sends the cookie of a session of its own. They are the
-- arguments after `--`. Prints how many requests each thread sent.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(arguments)
  sent = 0
  text = wrk.format("GET", nil, { Cookie = arguments[number] })
end

function request()
  sent = sent + 1
  return text
end

function done(summary, latency)
  local counts = {}
  for i, thread in ipairs(threads) do counts[i] = thread:get("sent") end
  local errors = 0
  for _, count in pairs(summary.errors) do errors = errors + count end
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"errors":%d,"latency50":%.3f,"latency99":%.3f,"sent":[%s]}\n',
    summary.requests, summary.duration / 1e6, errors,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, table.concat(counts, ",")
  ))
end
