-- Shared by the verbs that take or keep several words in one string; put before them when they are loaded.
-- Returns whether `word` is one of the words in `text`, which are separated by spaces.
local function has_word(text, word)
  for each in string.gmatch(text, '%S+') do
    if each == word then return true end
  end
  return false
end
