#!lua
-- The user record, as features/record.py lays it out. All scripts that change one begin with this file.
--
-- Lua's numbers are doubles, which hold whole numbers up to 2^53: revisions, keys, times and versions have 64 bits.
-- They stay the 8 little-endian bytes that they are, and are compared in halves.
--
-- Who waits for replicas waits for the last write of its own connection. A change that is repeated because too few had
-- it finds nothing to change: so it writes the same again, or it would wait for nothing.

local sub, concat, unpack_, pack = string.sub, table.concat, struct.unpack, struct.pack

local MAGIC, HEADER_BYTES = 'RU\3\0', 68
local ZERO, ONE = pack('<I4I4', 0, 0), pack('<I4I4', 1, 0)

-- Whether the int64 a is less than b.
local function less(a, b)
  local a_low, a_high = unpack_('<I4i4', a)
  local b_low, b_high = unpack_('<I4i4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

local function plus_one(a)
  local low, high = unpack_('<I4i4', a)
  if low == 4294967295 then
    return pack('<I4i4', 0, high + 1)
  end
  return pack('<I4i4', low + 1, high)
end

local function empty_record()
  return {
    n = 0, current = 0, revision = ZERO, answer_revision = ZERO, version = ZERO, computed_at = ZERO, born = ZERO,
    behind_since = ZERO, keys = '', times = '', page = '', weights = '', vector = '', types = '', attributes = '',
  }
end

-- The record in a value; nil if it is of no known format.
local function decoded(value)
  if not value then
    return empty_record()
  end
  if #value < HEADER_BYTES or sub(value, 1, 4) ~= MAGIC then
    return nil
  end
  local n, a, d, p, current = unpack_('<I4I4I2I2I4', value, 5)
  if #value ~= HEADER_BYTES + 21 * n + 8 * p + 4 * d + a then
    return nil
  end
  local at = HEADER_BYTES + 1
  local function column(bytes)
    at = at + bytes
    return sub(value, at - bytes, at - 1)
  end
  local record = {
    n = n, current = current, revision = sub(value, 21, 28), answer_revision = sub(value, 29, 36),
    version = sub(value, 37, 44), computed_at = sub(value, 45, 52), born = sub(value, 53, 60),
    behind_since = sub(value, 61, 68), keys = column(8 * n), times = column(8 * n), page = column(8 * p),
    weights = column(4 * n), vector = column(4 * d), types = column(n), attributes = column(a),
  }
  if record.version == ZERO then -- no answer
    record.answer_revision, record.computed_at, record.behind_since = ZERO, ZERO, ZERO
    record.current, record.page, record.vector = 0, '', ''
  end
  return record
end

local function encoded(r)
  return concat({
    MAGIC, pack('<I4I4I2I2I4', r.n, #r.attributes, #r.vector / 4, #r.page / 8, r.current), r.revision,
    r.answer_revision, r.version, r.computed_at, r.born, r.behind_since, r.keys, r.times, r.page, r.weights,
    r.vector, r.types, r.attributes,
  })
end

-- A record whose history or attributes have just been changed gets the next revision; now: Unix nanoseconds.
local function revise(r, now)
  local revision = plus_one(r.revision)
  if less(revision, now) then
    revision = now
  end
  r.revision = revision
  if r.version ~= ZERO and r.behind_since == ZERO then
    r.behind_since = revision
  end
  if r.born == ZERO then
    r.born = revision
  end
end

local function foreign()
  return redis.error_reply('RIPTIDE a user record is of no known format')
end

