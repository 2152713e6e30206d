-- Sends every series that has been stable for `StableAge` seconds to the Stillscan gateway, except
-- series that came from there. Add it to "LuaScripts" of Orthanc's configuration, with
--   "DicomModalities": { "stillscan": [ "STILLSCAN", "<host of the gateway>", 11112 ] },
--   "LuaHeartBeatPeriod": 60, "JobsHistorySize": 1000
-- Since Orthanc 1.11 the last two let it send again what the gateway could not accept.

local GATEWAY = 'stillscan'               -- name in DicomModalities
local TITLE = 'STILLSCAN'                 -- its AE title
local OURS = '99STILLSCAN'                -- coding scheme of the derivation code of Stillscan
local MODALITIES = { MR = true, CT = true, CR = true, DX = true, PT = true }

-- Returns whether Stillscan made a series: its own code for noise reduction, or its name as equipment
-- that contributed (a site may have chosen the standard's code).
local function isDerivedByStillscan(tags)
   for _, code in pairs(tags['DerivationCodeSequence'] or {}) do
      if code['CodingSchemeDesignator'] == OURS then return true end
   end
   for _, equipment in pairs(tags['ContributingEquipmentSequence'] or {}) do
      if equipment['ManufacturerModelName'] == 'Stillscan' then return true end
   end
   return false
end

function OnStableSeries(seriesId, tags, metadata)
   if not MODALITIES[tags['Modality'] or ''] then return end
   local series = ParseJson(RestApiGet('/series/' .. seriesId))
   local first = ParseJson(RestApiGet('/instances/' .. series['Instances'][1] .. '/simplified-tags'))
   if isDerivedByStillscan(first) then
      print('Stillscan: series ' .. seriesId .. ' was made by Stillscan and is not sent')
      return
   end
   -- asynchronous: a failed job stays in /jobs
   RestApiPost('/modalities/' .. GATEWAY .. '/store',
      DumpJson({ Resources = { seriesId }, Asynchronous = true, Synchronous = false }, true))
   print('Stillscan: series ' .. seriesId .. ' is on its way to the gateway')
end

-- Sends failed series again, after the gateway was down or its disk full.
function OnHeartBeat()
   for _, job in pairs(ParseJson(RestApiGet('/jobs?expand'))) do
      if job['State'] == 'Failure' and job['Type'] == 'DicomModalityStore'
         and job['Content']['RemoteAet'] == TITLE then
         RestApiPost('/jobs/' .. job['ID'] .. '/resubmit', '')
         print('Stillscan: job ' .. job['ID'] .. ' is tried again')
      end
   end
end
