-- Merges events into records as features.record.with_events does, all users or none.
-- KEYS: the record of each user; if ARGV[3] is 1, then the exclusion mark of each.
-- ARGV: now, Unix nanoseconds, int64; cap of a history; whether to leave out excluded users; whether to write records
-- again in which all is known (see record.lua); then for each user the columns of the events in order of time: keys,
-- times, weights, types.
-- Answers with the events recorded, and those that were known.

local now, cap, leave_out, again = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1'
local users = leave_out and #KEYS / 2 or #KEYS

-- How many of a record's events are not later than a time, given in halves.
local function not_later(r, low, high)
  local from, to = 0, r.n
  while from < to do
    local middle = math.floor((from + to) / 2)
    local its_low, its_high = unpack_('<I4i4', r.times, 8 * middle + 1)
    if its_high < high or (its_high == high and its_low <= low) then
      from = middle + 1
    else
      to = middle
    end
  end
  return from
end

-- Those of the events that a record does not hold: which they are, and how many of the record's go before each.
local function unknown(r, keys, times, types)
  local new, before, time, position, known = {}, {}, nil, 0, {}
  for i = 1, #types do
    local its_time = sub(times, 8 * i - 7, 8 * i)
    if its_time ~= time then
      time, known = its_time, {}
      position = not_later(r, unpack_('<I4i4', time))
      local j = position
      while j > 0 and sub(r.times, 8 * j - 7, 8 * j) == time do
        known[sub(r.keys, 8 * j - 7, 8 * j) .. sub(r.types, j, j)] = true
        j = j - 1
      end
    end
    local identity = sub(keys, 8 * i - 7, 8 * i) .. sub(types, i, i)
    if not known[identity] then
      known[identity] = true
      new[#new + 1], before[#new + 1] = i, position
    end
  end
  return new, before
end

local changed, recorded, duplicates = {}, 0, 0
for user = 1, users do
  if not (leave_out and redis.call('EXISTS', KEYS[users + user]) == 1) then
    local value = redis.call('GET', KEYS[user])
    local r = decoded(value)
    if not r then
      return foreign()
    end
    local keys, times, weights, types = unpack(ARGV, 4 * user + 1, 4 * user + 4)
    local new, before = unknown(r, keys, times, types)
    duplicates = duplicates + #types - #new
    -- Beyond the cap the oldest go, new ones too.
    local drop = math.max(0, r.n + #new - cap)
    local first = 1
    while first <= #new and before[first] + first - 1 < drop do
      first = first + 1
    end
    if first <= #new then
      recorded = recorded + #new - first + 1
      local function spliced(old, fresh, width)
        local parts, at = {}, drop - (first - 1)
        for j = first, #new do
          if before[j] > at then
            parts[#parts + 1] = sub(old, width * at + 1, width * before[j])
            at = before[j]
          end
          parts[#parts + 1] = sub(fresh, width * (new[j] - 1) + 1, width * new[j])
        end
        parts[#parts + 1] = sub(old, width * at + 1)
        return concat(parts)
      end
      r.keys, r.times = spliced(r.keys, keys, 8), spliced(r.times, times, 8)
      r.weights, r.types = spliced(r.weights, weights, 4), spliced(r.types, types, 1)
      r.n = r.n + #new - drop
      revise(r, now)
      changed[#changed + 1] = { KEYS[user], encoded(r) }
    elseif again and value then
      changed[#changed + 1] = { KEYS[user], value }
    end
  end
end
-- Nothing is written before all is known to be right: a script that fails is not undone.
for _, each in ipairs(changed) do
  redis.call('SET', each[1], each[2])
end
return { recorded, duplicates }
