import { useState } from "react";
import { ApiError, post } from "../api/client";
import { Editor } from "../parts/editor";
import { PairsField, TextField, fromPairs, type Pair } from "../parts/fields";
import { Failure } from "../parts/notice";
import { go, href } from "../router";

export const RUNTIMES: Record<string, { title: string; file: string; code: string }> = {
  python: {
    title: "Python",
    file: "main.py",
    code: `def handler(payload, context):
    """Greets whoever is in the payload."""
    name = (payload or {}).get("name", "world")
    print(f"greeting {name}")
    return {"greeting": f"Hello, {name}!"}
`,
  },
  node: {
    title: "JavaScript",
    file: "main.js",
    code: `// Greets whoever is in the payload.
exports.handler = async (payload, context) => {
  const name = payload?.name ?? "world";
  console.log(\`greeting \${name}\`);
  return { greeting: \`Hello, \${name}!\` };
};
`,
  },
  go: {
    title: "Go",
    file: "main.go",
    code: `package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// Handler greets whoever is in the payload.
func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	var in struct{ Name string }
	if err := json.Unmarshal(payload, &in); err != nil {
		return nil, err
	}
	fmt.Println("greeting", in.Name)
	return map[string]string{"greeting": "Hello, " + in.Name + "!"}, nil
}
`,
  },
};

export function Create() {
  const [name, setName] = useState("");
  const [runtime, setRuntime] = useState("python");
  const [written, setWritten] = useState<Record<string, string>>({});
  const [description, setDescription] = useState("");
  const [memory, setMemory] = useState("128");
  const [timeout, setTimeout_] = useState("30");
  const [env, setEnv] = useState<Pair[]>([]);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();
  const violations = error instanceof ApiError ? error.fields : [];
  const code = written[runtime] ?? RUNTIMES[runtime]?.code ?? "";

  const create = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const made = await post("/functions", {
        body: {
          name,
          runtime,
          code,
          description,
          memory_mb: Number(memory),
          timeout: `${Number(timeout)}s`,
          env: fromPairs(env),
        },
      });
      go(href("functions", made.name));
    } catch (failure) {
      setError(failure as Error);
      setBusy(false);
    }
  };

  return (
    <form
      className="create"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy) void create();
      }}
    >
      <header className="head">
        <h1>New function</h1>
      </header>
      {error && <Failure error={error} />}
      <div className="split">
        <section className="card card-editor" aria-label="Code">
          <div className="card-head">
            <div className="segments" role="radiogroup" aria-label="Runtime">
              {Object.entries(RUNTIMES).map(([id, { title }]) => (
                <label key={id}>
                  <input
                    type="radio"
                    name="runtime"
                    value={id}
                    checked={runtime === id}
                    onChange={() => setRuntime(id)}
                  />
                  {title}
                </label>
              ))}
            </div>
            <span className="faint mono small">{RUNTIMES[runtime]?.file}</span>
          </div>
          <Editor
            key={runtime}
            className="editor-tall"
            language={runtime}
            label={`Code of ${RUNTIMES[runtime]?.file ?? "main"}`}
            value={code}
            onChange={(value) => setWritten({ ...written, [runtime]: value })}
            onSubmit={() => void create()}
          />
        </section>
        <section className="card card-pad stack" aria-label="Settings">
          <TextField
            label="Name"
            hint="Lower-case letters, digits and dashes."
            required
            autoFocus
            value={name}
            field="name"
            violations={violations}
            placeholder="hello"
            onChange={(event) => setName(event.target.value)}
          />
          <TextField
            label="Description"
            value={description}
            field="description"
            violations={violations}
            placeholder="What it does, for people"
            onChange={(event) => setDescription(event.target.value)}
          />
          <div className="pair-of-fields">
            <TextField
              label="Memory, MiB"
              inputMode="numeric"
              value={memory}
              field="memory_mb"
              violations={violations}
              onChange={(event) => setMemory(event.target.value)}
            />
            <TextField
              label="Timeout, seconds"
              inputMode="decimal"
              value={timeout}
              field="timeout"
              violations={violations}
              onChange={(event) => setTimeout_(event.target.value)}
            />
          </div>
          <PairsField
            label="Environment"
            noun="variable"
            pairs={env}
            onChange={setEnv}
            field="env"
            violations={violations}
          />
          <div className="actions">
            <button type="submit" className="button primary" disabled={busy}>
              {busy ? "Creating …" : "Create function"}
            </button>
            <a className="button ghost" href={href("functions")}>
              Cancel
            </a>
          </div>
          <p className="faint small">
            Several files or dependencies? Send a zip:{" "}
            <code>curl -T app.zip {window.location.origin}/uploads</code>, then create the function
            with the <code>upload_id</code> that it answers.
          </p>
        </section>
      </div>
    </form>
  );
}
