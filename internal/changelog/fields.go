package changelog

// FieldsSince is the text of a query for the names of the columns and edges that changed between two versions of a record, as one
// text[]; null where the log does not have all the versions after $3 up to $4, as updates, any more.
//
// Its arguments are the id, the entity, the version that is known and the one to reach.
const FieldsSince = `
SELECT CASE WHEN count(*) = $4::bigint - $3::bigint AND coalesce(bool_and(c.op = 'U'), true) THEN
       ARRAY(SELECT DISTINCT f FROM changes d, unnest(d.fields) f
              WHERE d.id = $1 AND d.entity = $2 AND d.version > $3::bigint AND d.version <= $4::bigint ORDER BY f) END
  FROM changes c WHERE c.id = $1 AND c.entity = $2 AND c.version > $3::bigint AND c.version <= $4::bigint`
