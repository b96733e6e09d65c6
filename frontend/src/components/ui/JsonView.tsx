/** JSON to read, with its parts coloured. */
const PART = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export function JsonView({ value, label }: { value: unknown; label: string }) {
  const text = JSON.stringify(value, null, 2);
  return (
    // A region that scrolls has to be reachable by keyboard.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <pre className="code" tabIndex={0} role="region" aria-label={label}>
      {coloured(text)}
    </pre>
  );
}

function coloured(text: string) {
  const nodes: (string | React.JSX.Element)[] = [];
  let end = 0;
  for (const match of text.matchAll(PART)) {
    nodes.push(text.slice(end, match.index));
    const [whole, quoted, colon, word] = match;
    end = match.index + whole.length;
    const kind = quoted === undefined ? (word === undefined ? "number" : "word") : colon === undefined ? "text" : "key";
    nodes.push(
      <span key={match.index} className={kind}>
        {quoted ?? whole}
      </span>,
    );
    if (colon !== undefined) nodes.push(colon);
  }
  nodes.push(text.slice(end));
  return nodes;
}
