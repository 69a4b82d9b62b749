import { ThemeToggle } from "./components/ThemeToggle";
import { DeploymentPage } from "./pages/DeploymentPage";
import { InferencePage } from "./pages/InferencePage";
import { Overview } from "./pages/Overview";
import { Link, usePath } from "./router";

export function App() {
  const path = usePath();
  return (
    <>
      <header className="bar">
        <Link href="/" className="brand">
          <img src="/icon.svg" alt="" width="24" height="24" />
          Headrace
        </Link>
        <nav aria-label="Pages">
          <Link href="/" aria-current={path === "/" ? "page" : undefined}>
            Overview
          </Link>
          <a href="/openapi.json">API</a>
        </nav>
        <ThemeToggle />
      </header>
      <main>
        <Page path={path} />
      </main>
    </>
  );
}

function Page({ path }: { path: string }) {
  const [, kind, id] = /^\/(deployments|inferences)\/(\d+)\/?$/.exec(path) ?? [];
  if (path === "/") return <Overview />;
  if (kind === "deployments" && id) return <DeploymentPage key={id} id={id} />;
  if (kind === "inferences" && id) return <InferencePage key={id} id={id} />;
  return (
    <section className="panel empty">
      <h1>There is no page at {path}</h1>
      <p>
        <Link href="/">The overview</Link> has every training and every inference.
      </p>
    </section>
  );
}
