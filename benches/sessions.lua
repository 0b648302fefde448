-- For wrk: METHOD PATH FILE. The file has one Cookie header a line; requests take them in turn.

local requests = {}
local turn = 0

function init(arguments)
   local method, path, file = arguments[1], arguments[2], arguments[3]
   for cookies in io.lines(file) do
      table.insert(requests, wrk.format(method, path, { ["Cookie"] = cookies }))
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

-- One line for the program that started wrk: requests, errors, and times in microseconds.
function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   print(string.format("report %d %d %d %d %d", summary.requests, failed, summary.duration,
      latency:percentile(50), latency:percentile(99)))
end
