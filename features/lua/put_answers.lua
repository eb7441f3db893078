-- Caches answers as features.record.with_answer does.
-- KEYS: the record of each user. ARGV: for each user the answer: version, revision, when it was computed, since
-- when it is behind if it is (all int64), whether its page is current, vector, page.

-- Whether the answer of a record is newer than another one.
local function newer(r, revision, computed_at, version)
  if r.answer_revision ~= revision then
    return less(revision, r.answer_revision)
  end
  if r.computed_at ~= computed_at then
    return less(computed_at, r.computed_at)
  end
  return less(version, r.version)
end

for user = 1, #KEYS do
  local r = decoded(redis.call('GET', KEYS[user]))
  if not r then
    return foreign()
  end
  local version, revision, computed_at, behind_since, current, vector, page = unpack(ARGV, 7 * user - 6, 7 * user)
  local forgotten = less(revision, r.born) or less(revision, ONE)
  local never_was = less(r.revision, revision)
  local has_answer = r.version ~= ZERO
  if not (forgotten or never_was or (has_answer and newer(r, revision, computed_at, version))) then
    if page ~= '' or not has_answer then
      r.page, r.current = page, tonumber(current)
    else
      r.current = 0
    end
    if revision == r.revision then
      r.behind_since = ZERO
    elseif not (has_answer and r.answer_revision == revision) then
      r.behind_since = behind_since
    end
    r.version, r.answer_revision, r.computed_at, r.vector = version, revision, computed_at, vector
    redis.call('SET', KEYS[user], encoded(r))
  end
end
return #KEYS
