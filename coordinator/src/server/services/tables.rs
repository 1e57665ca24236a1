//! `Table` and `Curves`: statistics of a sweep's rows, at once or in pages.

use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::table::TableEntry;
use crate::analysis::{AnalysisError, TableParams, TableQuery, Weighting};
use crate::server::convert::{to_curve_point, to_table_row};
use crate::server::limits::{PageSender, Permit, ResponseStream};
use crate::server::services::access::SweepApi;
use crate::server::services::row_readers::table_error;
use crate::server::services::snapshot::SweepSnapshot;

/// Advice for a response that is too large in one piece.
const USE_PAGES_HINT: &str =
    "use a newer `ergodic`, which reads it page by page, or name fewer axes (--by)";

/// Advice for a response that is too large even in pages.
const FEWER_ROWS_HINT: &str = "name fewer axes (--by), or all of them, and no --at; or run `ergodic export` and query its files";

/// A checked query, with a permit for the bytes of its response.
struct AdmittedQuery {
    snapshot: SweepSnapshot,
    query: TableQuery,
    permit: Permit,
}

impl SweepApi {
    /// The body of `Table`.
    pub(crate) async fn answer_table(
        &self,
        request: &v1::TableRequest,
    ) -> Result<v1::TableResponse, Status> {
        let AdmittedQuery {
            snapshot,
            query,
            permit: _permit,
        } = self
            .admit_query(&request.sweep, &to_table_params(request), false, false)
            .await?;

        let table = v1::TableResponse {
            cell_condition: request.cell_condition.clone(),
            ..table_without_rows(&snapshot, &query)
        };
        let rows = self
            .read_rows(&snapshot, move |rows| query.compute_table(rows))
            .await?;
        Ok(v1::TableResponse {
            rows: rows.iter().map(to_table_row).collect(),
            ..table
        })
    }

    /// The body of `TablePages`.
    pub(crate) async fn stream_table(
        &self,
        request: &v1::TableRequest,
    ) -> Result<ResponseStream<v1::TableResponse>, Status> {
        let AdmittedQuery {
            snapshot,
            query,
            permit,
        } = self
            .admit_query(&request.sweep, &to_table_params(request), false, true)
            .await?;

        let table = v1::TableResponse {
            cell_condition: request.cell_condition.clone(),
            ..table_without_rows(&snapshot, &query)
        };
        self.stream_rows(&snapshot, move |rows, pages| {
            let _permit = permit;
            send_entry_pages(pages, table, fill_table_page, |each| {
                query.for_each_table_page(rows, each)
            })
        })
    }

    /// The body of `Curves`.
    pub(crate) async fn answer_curves(
        &self,
        request: &v1::CurvesRequest,
    ) -> Result<v1::CurvesResponse, Status> {
        let AdmittedQuery {
            snapshot,
            query,
            permit: _permit,
        } = self
            .admit_query(&request.sweep, &to_curve_params(request), true, false)
            .await?;

        let curves = v1::CurvesResponse {
            cell_condition: request.cell_condition.clone(),
            ..curves_without_points(&snapshot, &query)
        };
        let points = self
            .read_rows(&snapshot, move |rows| query.compute_curves(rows))
            .await?;
        Ok(v1::CurvesResponse {
            points: points.iter().map(to_curve_point).collect(),
            ..curves
        })
    }

    /// The body of `CurvePages`.
    pub(crate) async fn stream_curves(
        &self,
        request: &v1::CurvesRequest,
    ) -> Result<ResponseStream<v1::CurvesResponse>, Status> {
        let AdmittedQuery {
            snapshot,
            query,
            permit,
        } = self
            .admit_query(&request.sweep, &to_curve_params(request), true, true)
            .await?;

        let curves = v1::CurvesResponse {
            cell_condition: request.cell_condition.clone(),
            ..curves_without_points(&snapshot, &query)
        };
        self.stream_rows(&snapshot, move |rows, pages| {
            let _permit = permit;
            send_entry_pages(pages, curves, fill_curve_page, |each| {
                query.for_each_curve_page(rows, each)
            })
        })
    }

    async fn admit_query(
        &self,
        word: &str,
        params: &TableParams<'_>,
        has_curves: bool,
        is_paged: bool,
    ) -> Result<AdmittedQuery, Status> {
        let snapshot = self.find_snapshot(word).await?;
        let query = TableQuery::new(&snapshot.spec, params).map_err(table_error)?;
        if has_curves {
            query.metric().check_has_curve().map_err(table_error)?;
        }

        let bytes = query.estimate_bytes(&snapshot.spec, snapshot.done, has_curves, is_paged);
        let hint = if is_paged {
            FEWER_ROWS_HINT
        } else {
            USE_PAGES_HINT
        };
        let permit = self.acquire_for_answer(bytes, hint).await?;

        Ok(AdmittedQuery {
            snapshot,
            query,
            permit,
        })
    }
}

fn to_table_params(request: &v1::TableRequest) -> TableParams<'_> {
    let weighting = if request.cells_alike {
        Weighting::Cells
    } else {
        Weighting::Trials
    };
    TableParams {
        by: &request.by,
        pool_all: request.pool_all,
        metric: &request.metric,
        at: &request.at,
        stats: &request.stats,
        weighting,
        cell_condition: &request.cell_condition,
    }
}

fn to_curve_params(request: &v1::CurvesRequest) -> TableParams<'_> {
    TableParams {
        by: &request.by,
        pool_all: request.pool_all,
        metric: &request.metric,
        stats: &request.stats,
        cell_condition: &request.cell_condition,
        ..TableParams::default()
    }
}

fn table_without_rows(snapshot: &SweepSnapshot, query: &TableQuery) -> v1::TableResponse {
    v1::TableResponse {
        sweep: snapshot.id.to_string(),
        name: snapshot.spec.name.clone(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&snapshot.spec),
        rows: Vec::new(),
        better: query
            .metric()
            .larger_is_better()
            .map_or(0, |larger| if larger { 1 } else { -1 }),
        done: snapshot.done,
        trials: snapshot.trials,
        data: snapshot.data_provenance.clone(),
        numerics: snapshot.spec.numerics.clone(),
        columns: query.statistic_columns(),
        weighting: query.weighting_name().unwrap_or_default().to_owned(),
        unranked: query.unranked_reason().unwrap_or_default().to_owned(),
        ranked_by: Some(query.selection_metric())
            .filter(|by| *by != query.metric())
            .map(|by| by.name().into_owned())
            .unwrap_or_default(),
        cell_condition: String::new(),
        quantities: query.metric().definition().to_owned(),
    }
}

fn curves_without_points(snapshot: &SweepSnapshot, query: &TableQuery) -> v1::CurvesResponse {
    v1::CurvesResponse {
        sweep: snapshot.id.to_string(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&snapshot.spec),
        points: Vec::new(),
        columns: query.statistic_columns(),
        cell_condition: String::new(),
        quantities: query.metric().definition().to_owned(),
    }
}

fn fill_table_page(page: &mut v1::TableResponse, entries: &[TableEntry]) {
    page.rows = entries.iter().map(to_table_row).collect();
}

fn fill_curve_page(page: &mut v1::CurvesResponse, entries: &[TableEntry]) {
    page.points = entries.iter().map(to_curve_point).collect();
}

/// Sends entries in pages. The first page names the columns, and is sent even without entries.
fn send_entry_pages<P: Default + Send + 'static>(
    pages: &PageSender<P>,
    first: P,
    fill: impl Fn(&mut P, &[TableEntry]),
    for_each_page: impl FnOnce(&mut dyn FnMut(Vec<TableEntry>) -> bool) -> Result<(), AnalysisError>,
) -> Result<(), AnalysisError> {
    let mut first = Some(first);
    for_each_page(&mut |entries| {
        let mut page = first.take().unwrap_or_default();
        fill(&mut page, &entries);
        pages.send_page_blocking(Ok(page))
    })?;

    if let Some(page) = first {
        pages.send_page_blocking(Ok(page));
    }

    Ok(())
}
