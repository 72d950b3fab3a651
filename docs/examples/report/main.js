// A Markdown page from JSON: { "title", "summary", "rows": [ {…}, … ] }.
'use strict';

const { table } = require('./table.js');

exports.handler = async (payload, context) => {
  if (!payload || typeof payload.title !== 'string') {
    throw new TypeError('the payload needs a title');
  }
  const parts = [`# ${payload.title}`];
  if (payload.summary) parts.push(...section('Summary', payload.summary));
  if (payload.rows?.length) parts.push('## Details', table(payload.rows));
  parts.push(`*Made by ${context.functionName}, version ${context.functionVersion}.*`);
  console.log(`${parts.length} parts`);
  return parts.join('\n\n');
};

function section(heading, facts) {
  const lines = Object.entries(facts).map(([name, value]) => `- **${name}**: ${value}`);
  return [`## ${heading}`, lines.join('\n')];
}
