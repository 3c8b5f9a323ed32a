// Package codegen turns ent schema files into everything that follows from them: ent code, stores, SDL, resolvers
// and the next migration. It stands apart from the runtime: cmd/generate alone imports it.
//
// Guarantees:
//
//   - the output depends on the schema files and gqlgen.yml alone: deleting all generated code and generating
//     again gives the same tree (TestRegenerate);
//   - what each schema gives is written down in testdata (TestCorpus);
//   - an error names the schema file and what is wrong in it, rules of access among it (TestErrors);
//   - rules of access reach the program as the schema files have them (TestRuleExpr, and the case access);
//   - a new entity is a schema file away from its tables, API and live changes (TestNewEntity);
//   - generating needs no database, and a second run without a change writes nothing (TestNothingToDo).
//
// The way of the data: entc loads ent/schema; [prepare] checks the graph and derives entgql's annotations from
// ours; ent writes its code, with our templates for stores and one-statement updates; entgql builds the SDL,
// which [extendSDL] completes; gqlgen writes the executor, and our plugin the resolvers; last, the migration is
// the difference between the tables and migrations/schema.hcl.
package codegen
