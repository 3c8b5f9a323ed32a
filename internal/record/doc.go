// Package record is the runtime under the generated resolvers: reading, listing, creating, updating, deleting and
// watching records of any entity, from the entity's description ([Entity]) and the few functions that generated
// code supplies for it ([Model]).
//
// Guarantees, and the tests that hold them:
//
//   - of any number of writers with one expected version exactly one wins (TestOneWriterWins), and no
//     acknowledged write is lost (TestNoLostUpdate);
//   - a write that loses answers CONFLICT with the record as it is now, and costs a successful write nothing
//     (TestConflict, TestStatements);
//   - all entity mutations of one operation commit together or not at all (TestOperationIsOneTransaction);
//   - what a client sends is BAD_USER_INPUT when it is wrong, never INTERNAL (TestBadInput);
//   - reading a page of records takes a number of statements that does not depend on the number of records
//     (TestStatements);
//   - a subscription to a record starts with a snapshot and then gives each later version once, in order
//     (TestWatch).
//
// It may import viewer, entity, entpgx and changelog; generated code and everything above imports it. It never
// imports the generated ent package.
package record
