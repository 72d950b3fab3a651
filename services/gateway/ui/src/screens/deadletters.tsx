import { Empty } from "../parts/notice";
import { InvocationList } from "./invocations";

export function DeadLetters() {
  return (
    <>
      <header className="head">
        <div className="head-main">
          <h1>Dead letters</h1>
          <p className="muted">What the platform gave up on, through no fault of the function.</p>
        </div>
      </header>
      <InvocationList
        label="Dead letters"
        status="DEAD_LETTERED"
        none={
          <Empty title="Nothing was given up on">
            <p>
              An invocation comes here when its workers were lost too often, or when it could not be
              started in time. A function that merely fails is not here: see Invocations.
            </p>
          </Empty>
        }
      />
    </>
  );
}
