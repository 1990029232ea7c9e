"""`hifispeech serve`: the HTTP service. Mounted by `hifispeech.cli.program`."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hifispeech.cli.common import EXIT_CODES, Debug, Device, Model, needs_extra
from hifispeech.weights.packaged import DEFAULT

if TYPE_CHECKING:
    from hifispeech.serve.settings import Settings

EXTRA = ("fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client", "websockets")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

app = typer.Typer()


Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: all.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder for jobs, results and temporary files.")]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes for requests. Default: one per core.")
]
JobWorkers = Annotated[int, typer.Option(min=1, metavar="N", help="Processes for jobs.")]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="CPU threads of each process.")]
QueueSize = Annotated[int, typer.Option(min=0, metavar="N", help="Requests that may wait; then 429.")]
JobQueue = Annotated[int, typer.Option(min=1, metavar="N", help="Jobs that may wait; then 429.")]
Streams = Annotated[int, typer.Option(min=1, metavar="N", help="Streams open at a time.")]
MaxUpload = Annotated[float, typer.Option("--max-upload", min=0.001, metavar="MB", help="Largest file.")]
MaxMinutes = Annotated[float, typer.Option(min=0.001, metavar="MIN", help="Longest audio of a request.")]
MaxJobMinutes = Annotated[
    float, typer.Option(min=0.001, metavar="MIN", help="Longest audio of a job or an inspection.")
]
MaxChannels = Annotated[int, typer.Option(min=1, max=255, metavar="N", help="Most channels.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, metavar="S", help="Longest time of a request, upload included."),
]
Stall = Annotated[
    float,
    typer.Option(
        "--stall", min=0.1, metavar="S", help="Longest time without progress of a client or a decoder."
    ),
]
WorkerMemory = Annotated[
    float,
    typer.Option("--worker-memory", min=100, metavar="MB", help="Most memory of each, beside the model."),
]
KeepHours = Annotated[float, typer.Option(min=0, metavar="H", help="How long finished jobs are kept.")]
Grace = Annotated[
    float,
    typer.Option("--grace", min=0, metavar="S", help="Time to finish after SIGTERM."),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="API keys, one a line. Default: HIFISPEECH_API_KEY, or no key."),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Site whose pages may use the server, such as https://example.org."),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Host name clients may use. Default: on 127.0.0.1 its names; else any."
    ),
]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log.")]


@app.command(epilog=EXIT_CODES)
@needs_extra("serve", EXTRA)
def serve(
    ctx: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Data = Path("hifispeech-data"),
    workers: Workers = None,
    job_workers: JobWorkers = 1,
    threads: Threads = 1,
    queue: QueueSize = 32,
    job_queue: JobQueue = 1000,
    streams: Streams = 4,
    max_upload_mb: MaxUpload = 500.0,
    max_minutes: MaxMinutes = 10.0,
    max_job_minutes: MaxJobMinutes = 240.0,
    max_channels: MaxChannels = 8,
    timeout_s: Timeout = 300.0,
    stall_s: Stall = 60.0,
    worker_memory_mb: WorkerMemory = 1000.0,
    keep_hours: KeepHours = 24.0,
    grace_s: Grace = 20.0,
    api_key_file: ApiKeyFile = None,
    cors_origin: CorsOrigin = None,
    allowed_host: AllowedHost = None,
    model: Model = DEFAULT,
    device: Device = "auto",
    log_level: LogLevel = "info",
    debug: Debug = False,
) -> None:
    """Serve upscaling over HTTP, with a web page at /.

    Listens on this machine only unless told otherwise. Logs one JSON object a
    line to stderr. SIGTERM and Ctrl-C let running work finish; jobs that do not
    are taken up again at the next start.

    [bold]Examples[/bold]

      hifispeech serve

      hifispeech serve --host 0.0.0.0 --api-key-file keys.txt --data /var/lib/hifispeech

      curl -F file=@call.wav http://127.0.0.1:8000/v1/upscale -o call_48k.wav
    """
    from hifispeech import Upscaler
    from hifispeech.serve.server import serve as run

    upscaler = Upscaler(model, device, threads=threads)
    if not run(_settings(ctx.params), upscaler, host, port, log_level):
        raise typer.Exit(1)


def _settings(flags: dict[str, Any]) -> "Settings":
    """What the flags say; those that are called like a field of `Settings` are that field."""
    from hifispeech.runs.folder import available_cores
    from hifispeech.serve.settings import Settings, read_keys

    hosts = tuple(flags["allowed_host"] or ())
    if not hosts and flags["host"] in LOOPBACK:
        hosts = LOOPBACK  # a foreign name that leads here is not ours (DNS rebinding)
    own = {field.name: flags[field.name] for field in fields(Settings) if field.name in flags}
    own["workers"] = flags["workers"] or available_cores()
    return Settings(
        **own,
        api_keys=read_keys(flags["api_key_file"]),
        cors_origins=tuple(flags["cors_origin"] or ()),
        allowed_hosts=hosts,
    )
