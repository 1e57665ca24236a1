//! `SweepService`: the RPCs of users, each delegated to the file of its subject.

use ergodic_common::BUILD;
use ergodic_proto::v1::sweep_service_server::SweepService;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tonic::{Request, Response, Status};

use crate::process_stats;
use crate::server::auth::Principal;
use crate::server::limits::ResponseStream;
use crate::server::services::access::{Requester, SweepApi, requester_name};

#[tonic::async_trait]
impl SweepService for SweepApi {
    type WatchStream = ResponseStream<v1::WatchResponse>;
    type TrialsStream = ResponseStream<v1::TrialsResponse>;
    type PredictionsStream = ResponseStream<v1::PredictionsResponse>;
    type RowsStream = ResponseStream<v1::RowsResponse>;
    type TablePagesStream = ResponseStream<v1::TableResponse>;
    type CurvePagesStream = ResponseStream<v1::CurvesResponse>;
    type ListPagesStream = ResponseStream<v1::ListResponse>;
    type OutputStream = ResponseStream<v1::OutputResponse>;

    async fn launch(
        &self,
        request: Request<v1::LaunchRequest>,
    ) -> Result<Response<v1::LaunchResponse>, Status> {
        let requester = Requester::of_request(&request);
        let launched = self.launch_sweep(request.into_inner(), requester).await?;
        Ok(Response::new(launched))
    }

    async fn list_pages(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<Self::ListPagesStream>, Status> {
        Ok(Response::new(self.stream_statuses()?))
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        Ok(Response::new(self.list_sweeps().await?))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let status = self.answer_status(&request.into_inner().sweep).await?;
        Ok(Response::new(status))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let principal = request.extensions().get::<Principal>().cloned();
        let id = request.into_inner().sweep;
        Ok(Response::new(self.watch_sweep(&id, principal).await?))
    }

    async fn workers(
        &self,
        _: Request<v1::WorkersRequest>,
    ) -> Result<Response<v1::WorkersResponse>, Status> {
        Ok(Response::new(self.list_workers().await?))
    }

    async fn drain_workers(
        &self,
        request: Request<v1::DrainWorkersRequest>,
    ) -> Result<Response<v1::DrainWorkersResponse>, Status> {
        let workers = self.drain_workers_of(request.into_inner()).await?;
        Ok(Response::new(v1::DrainWorkersResponse { workers }))
    }

    async fn table(
        &self,
        request: Request<v1::TableRequest>,
    ) -> Result<Response<v1::TableResponse>, Status> {
        let table = self.answer_table(&request.into_inner()).await?;
        Ok(Response::new(table))
    }

    async fn table_pages(
        &self,
        request: Request<v1::TableRequest>,
    ) -> Result<Response<Self::TablePagesStream>, Status> {
        let pages = self.stream_table(&request.into_inner()).await?;
        Ok(Response::new(pages))
    }

    async fn trials(
        &self,
        request: Request<v1::TrialsRequest>,
    ) -> Result<Response<Self::TrialsStream>, Status> {
        let trials = self.stream_trials(request.into_inner()).await?;
        Ok(Response::new(trials))
    }

    async fn predictions(
        &self,
        request: Request<v1::PredictionsRequest>,
    ) -> Result<Response<Self::PredictionsStream>, Status> {
        let predictions = self.stream_predictions(request.into_inner()).await?;
        Ok(Response::new(predictions))
    }

    async fn rows(
        &self,
        request: Request<v1::RowsRequest>,
    ) -> Result<Response<Self::RowsStream>, Status> {
        let rows = self.stream_new_rows(request.into_inner()).await?;
        Ok(Response::new(rows))
    }

    async fn curves(
        &self,
        request: Request<v1::CurvesRequest>,
    ) -> Result<Response<v1::CurvesResponse>, Status> {
        let curves = self.answer_curves(&request.into_inner()).await?;
        Ok(Response::new(curves))
    }

    async fn curve_pages(
        &self,
        request: Request<v1::CurvesRequest>,
    ) -> Result<Response<Self::CurvePagesStream>, Status> {
        let pages = self.stream_curves(&request.into_inner()).await?;
        Ok(Response::new(pages))
    }

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<v1::CompareResponse>, Status> {
        let contrasts = self.answer_compare(request.into_inner()).await?;
        Ok(Response::new(contrasts))
    }

    async fn distance(
        &self,
        request: Request<v1::DistanceRequest>,
    ) -> Result<Response<v1::DistanceResponse>, Status> {
        let distances = self.answer_distance(request.into_inner()).await?;
        Ok(Response::new(distances))
    }

    async fn effects(
        &self,
        request: Request<v1::EffectsRequest>,
    ) -> Result<Response<v1::EffectsResponse>, Status> {
        let effects = self.answer_effects(request.into_inner()).await?;
        Ok(Response::new(effects))
    }

    async fn variance(
        &self,
        request: Request<v1::VarianceRequest>,
    ) -> Result<Response<v1::VarianceResponse>, Status> {
        let variance = self.answer_variance(request.into_inner()).await?;
        Ok(Response::new(variance))
    }

    async fn verdict(
        &self,
        request: Request<v1::VerdictRequest>,
    ) -> Result<Response<v1::VerdictResponse>, Status> {
        let verdicts = self.answer_verdict(request.into_inner()).await?;
        Ok(Response::new(verdicts))
    }

    async fn needs(
        &self,
        request: Request<v1::SampleSizeRequest>,
    ) -> Result<Response<v1::SampleSizeResponse>, Status> {
        let sample_size = self.answer_sample_size(request.into_inner()).await?;
        Ok(Response::new(sample_size))
    }

    async fn steer(
        &self,
        request: Request<v1::SteerRequest>,
    ) -> Result<Response<v1::SteerResponse>, Status> {
        let requester = Requester::of_request(&request);
        let status = self.answer_steer(&request.into_inner(), &requester).await?;
        Ok(Response::new(v1::SteerResponse { status }))
    }

    async fn extend(
        &self,
        request: Request<v1::ExtendRequest>,
    ) -> Result<Response<v1::ExtendResponse>, Status> {
        let requester = Requester::of_request(&request);
        let extended = self.extend_sweep(request.into_inner(), requester).await?;
        Ok(Response::new(extended))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let removed = self.answer_remove(request.into_inner()).await?;
        Ok(Response::new(removed))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let answer = self.answer_explain(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn output(
        &self,
        request: Request<v1::OutputRequest>,
    ) -> Result<Response<Self::OutputStream>, Status> {
        let principal = request.extensions().get::<Principal>().cloned();
        let output = self.stream_output(request.into_inner(), principal).await?;
        Ok(Response::new(output))
    }

    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        Ok(Response::new(v1::InfoResponse {
            principal: requester_name(&request),
            build: BUILD.to_owned(),
            protocol: PROTOCOL_VERSION,
            cpu_seconds: process_stats::cpu_seconds(),
            peak_rss_bytes: process_stats::peak_rss_bytes(),
            epoch: self.0.leadership.epoch().0,
            leader: self.0.leadership.other_leader().unwrap_or_default(),
        }))
    }
}
