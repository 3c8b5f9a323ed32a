// A plugin of prettier for JSON with comments, by way of jsonc-parser. GraphiQL tidies variables and headers with
// prettier's plugins for JavaScript, half a megabyte; this stands in their place.
import { applyEdits, format } from 'jsonc-parser';

const options = { insertSpaces: true, tabSize: 2 };

export const parsers = {
  jsonc: {
    astFormat: 'jsonc',
    parse: (text) => ({ text }),
    locStart: () => 0,
    locEnd: ({ text }) => text.length,
  },
};

export const printers = {
  jsonc: { print: ({ node: { text } }) => applyEdits(text, format(text, undefined, options)) },
};
