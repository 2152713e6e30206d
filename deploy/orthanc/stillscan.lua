-- Sends every series that has been stable for `StableAge` seconds to the Stillscan gateway, except
-- what came from there. Put it into "LuaScripts" of Orthanc's configuration, with
--   "DicomModalities": { "stillscan": [ "STILLSCAN", "<host of the gateway>", 11112 ] }

local GATEWAY = 'stillscan'               -- name in DicomModalities
local OURS = '99STILLSCAN'                -- coding scheme of the derivation code in our headers
local MODALITIES = { MR = true, CT = true, CR = true, DX = true, PT = true }

-- Whether Stillscan made a series: its own code for noise reduction, or its name as the equipment
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
   -- asynchronous: a job that fails is listed in /jobs and can be submitted again there
   RestApiPost('/modalities/' .. GATEWAY .. '/store',
      DumpJson({ Resources = { seriesId }, Asynchronous = true, Synchronous = false }, true))
   print('Stillscan: series ' .. seriesId .. ' is on its way to the gateway')
end
