"""What the service answers with, for validation and for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from hifispeech.serve.jobs.database import Job

FileType = Literal["wav", "flac", "ogg", "opus", "mp3"]
MEDIA_TYPES: dict[str, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg; codecs=opus",
    "mp3": "audio/mpeg",
}


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["bad_audio"])
    message: str = Field(examples=["call.wav: is empty (0 bytes); a file with audio is needed"])
    request_id: str = Field(examples=["9f86d081884c7d65"])


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


class InspectionAnswer(BaseModel):
    """What is in a file, as `hifispeech inspect --json` prints it."""

    path: str = Field(description="Name of the file as the client gave it, cleaned.", examples=["call.wav"])
    container: str = Field(examples=["wav"])
    codec: str = Field(examples=["pcm_16"])
    sample_rate: int = Field(examples=[8000])
    channels: int = Field(examples=[1])
    duration_s: float = Field(examples=[4.372])
    cutoff_hz: float = Field(description="Where the content ends; 0 for digital silence.", examples=[3406.2])
    is_full_band: bool = Field(examples=[False])
    is_silent: bool = Field(examples=[False])
    peak: float = Field(description="Largest absolute sample; 1 is full scale.", examples=[0.71])
    clipped_samples: int = Field(examples=[0])
    channel_cutoffs_hz: list[float] = Field(examples=[[3406.2]])
    warnings: list[str] = Field(examples=[[]])


class ModelCard(BaseModel, extra="allow"):
    """A packaged model with its card: sizes, training data, licence."""

    name: str = Field(examples=["fast"])
    sample_rate: int = Field(default=48000, examples=[48000])
    licence: str = Field(default="", examples=["Apache-2.0"])


class ModelsAnswer(BaseModel):
    """The models in the package."""

    models: list[ModelCard]


class JobAnswer(BaseModel):
    """A job. What follows `error` is there once it is done."""

    id: str = Field(examples=["4f0c6b6e2a8d4f57b7c1d7f0a1b2c3d4"])
    status: Literal["queued", "running", "done", "failed", "cancelled"] = Field(examples=["done"])
    progress: float = Field(ge=0, le=1, examples=[1.0])
    name: str = Field(examples=["call.wav"])
    format: FileType = Field(examples=["wav"])
    created_at: float = Field(description="Seconds since 1970, UTC.", examples=[1795345200.0])
    started_at: float | None = Field(default=None, examples=[1795345201.0])
    finished_at: float | None = Field(default=None, examples=[1795345203.5])
    expires_at: float | None = Field(
        default=None, description="When the job and its result are removed.", examples=[1795431603.5]
    )
    error: str | None = Field(default=None, examples=[None])
    sample_rate: int | None = Field(default=None, description="Of the input.", examples=[8000])
    channels: int | None = Field(default=None, examples=[1])
    duration_s: float | None = Field(default=None, examples=[4.372])
    cutoff_hz: list[float] | None = Field(default=None, examples=[[3406.2]])
    full_band: list[bool] | None = Field(default=None, examples=[[False]])
    silent: list[bool] | None = Field(default=None, examples=[[False]])
    peak: float | None = Field(default=None, examples=[0.74])
    samples_over: int | None = Field(default=None, examples=[0])
    warnings: list[str] | None = Field(default=None, examples=[[]])
    result_bytes: int | None = Field(default=None, examples=[419_756])


def job_answer(job: Job, progress: float, keep_hours: float) -> JobAnswer:
    """A row of the database as the client sees it."""
    expires_at = None if job.finished_at is None else job.finished_at + keep_hours * 3600
    values: dict[str, Any] = {
        "id": job.id,
        "status": job.status,
        "progress": progress,
        "name": job.name,
        "format": job.format,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": expires_at,
        "error": job.error,
    }
    return JobAnswer(**values, **job.report)


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok", "shutting_down"] = Field(examples=["ok"])
    version: str = Field(examples=["0.1.0"])
