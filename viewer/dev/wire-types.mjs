// Writes src/wire.ts: what the server sends to the viewer, as types, from the OpenAPI document that
// crates/api holds as reviewed. `npm run wire-types` writes it; with --check it only compares.

import { readFile, writeFile } from 'node:fs/promises';

import { compile } from 'json-schema-to-typescript';

const REVIEWED = new URL('../../crates/api/tests/snapshots/openapi__the_document_is_as_reviewed.snap', import.meta.url);
const TYPES = new URL('../src/wire.ts', import.meta.url);

/** The types of the document's schemas that the viewer reads and sends. */
export async function wireTypes() {
  // An insta snapshot: a header between two lines of dashes, then the document.
  const document = JSON.parse((await readFile(REVIEWED, 'utf8')).split(/^---$/m)[2]);
  const wanted = ['EndUserSessionView', 'Problem', 'CodeTaken'];
  const schema = {
    title: 'Wire',
    type: 'object',
    properties: Object.fromEntries(wanted.map((name) => [name, { $ref: `#/components/schemas/${name}` }])),
    components: document.components,
  };
  const banner = '// Made from the OpenAPI document by `npm run wire-types`; do not edit.';
  const options = { additionalProperties: false, bannerComment: banner, style: { singleQuote: true, printWidth: 120 } };
  const types = await compile(schema, 'Wire', options);
  // The root is there to name the others.
  return types.replace(/export interface Wire \{[^}]*\}\n/, '').replaceAll(/ Named1\b/g, ' Named').replace(
    /\/\*\*\n \* Which tool\.\n \*\/\nexport interface Named \{[^}]*\}\n/, '');
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const types = await wireTypes();
  if (process.argv.includes('--check')) {
    if (types !== (await readFile(TYPES, 'utf8'))) {
      console.error('src/wire.ts is not what the OpenAPI document says; run `npm run wire-types`');
      process.exitCode = 1;
    }
  } else {
    await writeFile(TYPES, types);
  }
}
