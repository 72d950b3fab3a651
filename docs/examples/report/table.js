// A Markdown table of objects that have the same keys.
'use strict';

exports.table = (rows) => {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const line = (cells) => `| ${cells.map(escaped).join(' | ')} |`;
  return [
    line(names),
    `|${names.map(() => '---').join('|')}|`,
    ...rows.map((row) => line(names.map((name) => row[name] ?? ''))),
  ].join('\n');
};

const escaped = (value) => String(value).replaceAll('|', '\\|').replaceAll('\n', ' ');
